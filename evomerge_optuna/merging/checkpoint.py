"""Checkpoint merger: a recipe becomes files, written by mergekit's `run_merge`."""

import contextlib
import io
import logging
import os
import re
import shutil
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.home import home
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.fingerprint import digest_tensors
from evomerge_optuna.recipes.merge import MergeRecipe


def write_checkpoint(recipe: MergeRecipe, folder: Path) -> str:
    """Writes the recipe's checkpoint (safetensors, config, tokenizer) and returns its digest.

    Returns:
        SHA-256 over the merged tensors, see `digest_tensors`.

    Raises:
        CandidateError: mergekit refuses the recipe, or a weight is NaN or infinite.
        OSError: the machine's fault: a file cannot be read or written.
    """
    from mergekit.config import MergeConfiguration
    from mergekit.io.tasks import LoaderCache
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    located = recipe.located(lambda model: str(local_folder(model)))
    options = MergeOptions(
        random_seed=recipe.seed,
        safe_serialization=True,
        trust_remote_code=False,
        write_model_card=False,
        quiet=True,
    )
    try:
        configuration = MergeConfiguration.model_validate(located.configuration)
        with _quiet():
            run_merge(configuration, str(folder), options)
    except OSError:
        raise  # the machine's fault, not the candidate's
    except Exception as error:
        # safetensors reports a full disk as an error of its own.
        if system := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(system[1])
            raise OSError(number, os.strerror(number), str(folder)) from error
        raise CandidateError(f"mergekit cannot build it: {_first_line(error)}") from error
    finally:
        LoaderCache().flush_all()  # it would go on reading files as they once were
    return digest_tensors(folder)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder for one checkpoint, removed at the end; leftovers of dead workers too."""
    root = home() / "scratch"
    root.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(root)
    folder = root / f"{socket.gethostname()}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(root: Path) -> None:
    for folder in root.iterdir():
        host, _, owner = folder.name.rpartition("-")
        if host == socket.gethostname() and owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """mergekit logs and warns at every merge; a study merges a thousand times."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _first_line(error: Exception) -> Any:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
