"""A merge as files: written as mergekit makes it, and loaded from there."""

import itertools
import os
import shutil
import socket
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from evomerge_optuna.home import home
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.plan import translated_errors
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.stream import write_stream
from evomerge_optuna.recipes.merge import MergeRecipe

_numbers = itertools.count()  # of this process's scratch folders


class ModelFromFiles:
    """Writes every merge's checkpoint into a scratch folder and loads the model from there.

    For models that do not fit into memory next to each other, and for tasks whose model backend
    loads the files, which stay until the next merge.
    """

    def __init__(self, device: str) -> None:
        self._merger = MergekitMerger(device)
        self._files = ExitStack()
        weakref.finalize(self, self._files.close)

    def load(self, recipe: MergeRecipe) -> None:
        """Does nothing, since every merge reads its models anew."""

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; see `ModelMaker`."""
        self._files.close()  # the last candidate's
        with ExitStack() as files:
            folder = files.enter_context(scratch_folder())
            with translated_errors(folder):
                digest = write_stream(self._merger.stream(recipe), folder)
            model, tokenizer = load_model(folder, self._merger.device)
            self._files.push(files.pop_all())
        return Merged(model, tokenizer, lambda: digest)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for one checkpoint, removed at the end; leftovers of dead workers too."""
    root = home() / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    own, number = root / f"{socket.gethostname()}-{os.getpid()}", next(_numbers)
    if number == 0:  # of a dead worker that had the same number
        shutil.rmtree(own, ignore_errors=True)
    folder = own / str(number)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another merger of this process has files there
            own.rmdir()


def _remove_leftovers(root: Path) -> None:
    for folder in root.iterdir():
        host, _, owner = folder.name.rpartition("-")
        if host == socket.gethostname() and owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
