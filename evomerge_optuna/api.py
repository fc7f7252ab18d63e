"""The Python interface: what `study create`, `study run` and `study export` do, for scripts."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from evomerge_optuna.ready import make_study
from evomerge_optuna.report.export import export as export_trial
from evomerge_optuna.report.outcome import choice_remark
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.run import Face, Limits, say_nothing
from evomerge_optuna.run import run_study as run
from evomerge_optuna.spec import StudySpec, is_spec_file, load_spec, spec_at
from evomerge_optuna.store.faults import database_errors
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.studies import MergeStudy, open_study

Spec = StudySpec | Mapping[str, Any] | str | os.PathLike[str]


def create_study(
    spec: Spec, storage: str | None = None, *, say: Callable[[str], None] = say_nothing
) -> MergeStudy:
    """Checks a spec, its models and its data, and stores the study without running it.

    Args:
        spec: the content of a spec file as a mapping, the path of one, or a parsed spec. A
            mapping's local paths are relative to the current folder.
        storage: the database's URL; `$EVOMERGE_STORAGE` or a SQLite file under `./storage`
            unless given.
        say: called with each line about what was found, as `print` is.

    Returns:
        The study. Its `study` is the Optuna study, its `trials()` and `best()` are Optuna's trials.

    Raises:
        SpecError: something does not fit; nothing was stored.
        StudyExistsError: a study of this name exists.
        StorageError: the database cannot be used.
    """
    parsed, store = _parsed(spec), open_store(storage)
    with database_errors(store.url):
        return make_study(store, parsed, say)


def run_study(
    study: Spec,
    storage: str | None = None,
    *,
    trials: int | None = None,
    timeout: float | None = None,
    workers: int = 1,
    grace: float = 0.0,
    no_better_in: int | None = None,
    allow_code: bool = False,
    say: Callable[[str], None] = say_nothing,
) -> MergeStudy:
    """Runs a study until it has all its trials. It creates the study of a spec if there is none.

    A study that was begun continues.

    Args:
        study: a study's name, or a spec as `create_study` takes it.
        storage: see `create_study`.
        trials: the total wanted, with those already run; the spec's unless given.
        timeout: seconds, after which no further trial begins.
        workers: processes on this machine. If there are several, each imports the script again, so
            call this under `if __name__ == "__main__":`.
        grace: seconds that the running trials have to finish after SIGTERM.
        no_better_in: stop after this many trials without a better one; 0: do not stop; what the
            spec says (`stop`) unless given.
        allow_code: run the code that the python tasks of a stored study name. That of a spec is
            allowed.
        say: called with each line about what happens, as `print` is.

    Returns:
        The study, as `create_study` does.

    Raises:
        SpecError, StorageError: as `create_study`.
        UsageError: a limit is too small, or there is no such study.
        StudyChangedError: the spec or a file is not what the study was begun with.
        Interrupted: by Ctrl-C or SIGTERM; every finished trial is kept.
        EvomergeError: the database or the machine failed, every candidate fails alike, or none
            of all wanted trials has a score.
    """
    limits = Limits(trials, workers, timeout, grace, no_better_in)
    is_name = isinstance(study, str) and not is_spec_file(study)
    name_or_spec = str(study) if is_name else _parsed(study)
    store = open_store(storage)
    with database_errors(store.url):
        return run(store, name_or_spec, limits, allow_code=allow_code, face=Face(say))


def export(
    study: str,
    folder: str | os.PathLike[str],
    storage: str | None = None,
    *,
    trial: int | str = "best",
    merged: bool = False,
    single_file: bool = False,
    say: Callable[[str], None] = say_nothing,
) -> str:
    """Writes a trial's model to a new folder: weights, tokenizer, recipe and model card.

    Of a study of adapters that is an adapter.

    Args:
        study: the study's name.
        folder: the new folder.
        storage: see `create_study`.
        trial: a number, `best` or, of several objectives, `knee`.
        merged: merge an adapter into its base model, and write that.
        single_file: also write a pipeline of SD 1.5 or SDXL as one file.
        say: called with each line about what was checked, as `print` is.

    Returns:
        SHA-256 over the exported tensors, which is that of the scored ones.

    Raises:
        UsageError: there is no such study or scored trial, or the folder exists.
        ExportError: the tensors are not those that were scored, or the disk is full.
    """
    store = open_store(storage)
    with database_errors(store.url):
        opened, which = open_study(store, study).as_read(), str(trial)
        digest = export_trial(
            opened,
            find_trial(opened, which),
            Path(folder),
            say,
            merged=merged,
            single_file=single_file,
        )
        if remark := choice_remark(opened, which):
            say(remark)
        return digest


def _parsed(spec: Spec) -> StudySpec:
    if isinstance(spec, StudySpec):
        return spec
    if isinstance(spec, Mapping):
        return spec_at(Path.cwd(), dict(spec))
    return load_spec(Path(spec))
