"""Checkpoints made of other checkpoints, written once and kept."""

from collections.abc import Callable
from pathlib import Path

from evomerge_optuna.errors import SpecError
from evomerge_optuna.home import models_folder
from evomerge_optuna.whole_folder import whole_folder


def derived_folder(kind: str, key: str, write: Callable[[Path], None]) -> Path:
    """The folder `KIND-KEY` among the cached models, filled by `write` unless it is there.

    Whole or not at all, whatever is killed when; of several processes one writes and the others
    wait. The key must decide the bytes: make it of the fingerprints of what they derive from.

    Args:
        write: fills the empty folder that it is given.

    Raises:
        SpecError: mergekit could not read a model there.
    """
    from filelock import FileLock

    folder = models_folder() / f"{kind}-{key}"
    check_path(folder, "EVOMERGE_HOME")
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            with whole_folder(folder) as temporary:
                write(temporary)
    return folder


def check_path(folder: Path, variable: str) -> None:
    """Refuses a folder in which mergekit would find no model.

    Args:
        variable: moves it elsewhere.

    Raises:
        SpecError: its path has a mark that means something else.
    """
    if "@" in str(folder) or "+" in str(folder):
        raise SpecError(
            f"{folder}: mergekit takes what follows '@' for a revision, and what follows '+' for "
            f"an adapter; set {variable} to another folder"
        )
