"""Checkpoint merger: a recipe becomes files, written by mergekit."""

import itertools
import os
import shutil
import socket
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import transformers

from evomerge_optuna.home import home
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.plan import mergekit_errors, plan_merge
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.loading import load_model, torch_device
from evomerge_optuna.recipes.merge import MergeRecipe

_numbers = itertools.count()  # of this process's scratch folders


def write_checkpoint(recipe: MergeRecipe, folder: Path, device: str) -> str:
    """Writes the recipe's checkpoint (safetensors, config, tokenizer) and returns its digest.

    Args:
        device: where mergekit computes ("auto", "cpu" or "cuda"); random masks depend on it.

    Returns:
        SHA-256 over the merged tensors, see `digest_files`.

    Raises:
        CandidateError: mergekit refuses the recipe, or a weight is NaN or infinite.
        OSError: the machine's fault: a file cannot be read or written.
    """
    with mergekit_errors(folder):
        # Not run_merge, which merges what mergekit's definition of the architecture names alone.
        plan = plan_merge(recipe, folder, torch_device(device))
        transformers.set_seed(recipe.seed)
        plan.write_weights()
        plan.write_tokenizer(folder)
        plan.config.save_pretrained(folder)
    return digest_files(folder)


class CheckpointMerger:
    """Writes every candidate's checkpoint into a scratch folder and loads it from there.

    For models that do not fit into memory next to each other, and for tasks whose model backend
    loads the files, which stay until the next merge.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._files = ExitStack()
        weakref.finalize(self, self._files.close)

    def load(self, recipe: MergeRecipe) -> None:
        """Nothing is kept between merges."""

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model.

        Raises:
            CandidateError: see `write_checkpoint`.
            OSError: see `write_checkpoint`.
        """
        self._files.close()  # the last candidate's
        with ExitStack() as files:
            folder = files.enter_context(scratch_folder())
            digest = write_checkpoint(recipe, folder, self._device)
            model, tokenizer = load_model(folder, self._device)
            self._files.push(files.pop_all())
        return Merged(model, tokenizer, digest)


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
