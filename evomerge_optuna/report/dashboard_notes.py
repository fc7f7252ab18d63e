"""Notes of optuna-dashboard, written without its package.

The package imports its web application, and that sklearn and plotly: seconds before a first trial.
The module of the notes needs nothing but Optuna, and is loaded alone.
"""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import optuna
from optuna.trial import FrozenTrial

from evomerge_optuna.store.optuna_internals import set_study_attribute, trial_id


def save_study_note(study: optuna.Study, text: str) -> None:
    """Writes the study's note, in Markdown; a new version of it where there is one."""
    _notes().save_note(study, text)


def save_first_note(study: optuna.Study, trial: FrozenTrial, text: str) -> None:
    """Writes the note of a finished trial that has none yet.

    `save_note` reads all notes of the study twice, which takes longer with each trial.
    """
    notes = _notes()
    parts = notes.split_body(text, trial_id(trial))
    for key, part in {**parts, notes.note_ver_key(trial_id(trial)): 1}.items():
        set_study_attribute(study, key, part)


@cache
def _notes() -> ModuleType:
    """The module `optuna_dashboard._note`."""
    package = importlib.util.find_spec("optuna_dashboard")  # imports nothing
    assert package is not None and package.origin is not None
    file = Path(package.origin).with_name("_note.py")
    spec = importlib.util.spec_from_file_location("evomerge_optuna_dashboard_note", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
