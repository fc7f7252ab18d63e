"""A trial's model on the Hugging Face hub: exported, checked, uploaded with its results."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from optuna.trial import FrozenTrial

from evomerge_optuna.errors import ExportError, UsageError
from evomerge_optuna.home import home
from evomerge_optuna.models.adapters import ADAPTER_CONFIG
from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.report.card import RECIPE_FILE, without_places
from evomerge_optuna.report.card_metadata import evaluation_results
from evomerge_optuna.report.export import STACK_FILE, export
from evomerge_optuna.report.export_adapter import ADAPTER_RECIPE
from evomerge_optuna.report.hub import Contents, Repository, differing
from evomerge_optuna.study.studies import MergeStudy

_NAMING = (RECIPE_FILE, STACK_FILE, ADAPTER_RECIPE, ADAPTER_CONFIG)  # files that name models


def push(
    merge_study: MergeStudy,
    trial: FrozenTrial,
    repository: str,
    *,
    public: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """Exports a trial's model and uploads it to a repository, which is made unless it is there.

    The hub is asked before anything is merged. A repository that has the same model is filled up:
    so an upload that was cut short continues.

    Args:
        repository: USER/NAME.
        public: may everybody see a repository that is made now? One that is there stays as it is.

    Returns:
        The address of the model's page.

    Raises:
        UsageError: there is no token, or the repository has something else, or is public and that
            was not asked for.
        ExportError: see `export`; or there is no room for it in the home folder.
        EvomergeError: the hub does not answer, or refuses something.
    """
    target = Repository(repository, say)
    contents = target.look()
    if contents is not None:
        _check_visibility(target.name, contents, public, say)
    if not evaluation_results(merge_study, trial):
        say(
            "the card has no results of test: evomerge-optuna study test "
            f"{merge_study.quoted_name} --trial {trial.number} scores them"
        )
    with _room_for("model") as folder:
        export(merge_study, trial, folder, say)
        _leave_out_places(folder)
        if contents is not None:
            _check_same(target.name, folder, contents)
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        say(f"uploading {len(files)} files, {size / 1e6:,.1f} MB, to {target.address}")
        message = f"Trial {trial.number} of {merge_study.name}, by evomerge-optuna"
        target.fill(folder, public=public, message=message)
    return target.address


@contextmanager
def _room_for(name: str) -> Iterator[Path]:
    """A folder to come, of this name, which is gone after the block."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="push-", dir=home()) as temporary:
            yield Path(temporary) / name
    except OSError as error:
        place = error.filename or home()
        raise ExportError(
            f"{place}: {error.strerror}; the model is exported there first"
        ) from error


def _check_visibility(
    name: str, contents: Contents, public: bool, say: Callable[[str], None]
) -> None:
    if not contents.is_private and not public:
        raise UsageError(
            f"{name} is there and everybody can see it; add --public if that is meant, or name "
            "another repository"
        )
    if contents.is_private and public:
        say(f"{name} is private and stays so; its settings on the hub can change that")


def _check_same(name: str, folder: Path, contents: Contents) -> None:
    """Refuses a repository that has something else: nothing is ever overwritten but the card."""
    if others := differing(folder, contents):
        raise UsageError(
            f"{name} has something else ({', '.join(others[:3])}); name another repository, or "
            "delete that one"
        )


def _leave_out_places(folder: Path) -> None:
    """Has recipes, and the configuration of an adapter, name models without where they lie here."""
    for name in _NAMING:
        file = folder / name
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            content = without_places(yaml.safe_load(text))
            remarks = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
            is_json = file.suffix == ".json"
            shown = json.dumps(content, indent=2) + "\n" if is_json else to_yaml(content)
            file.write_text("".join(remarks) + shown, encoding="utf-8")
