"""Tensors as files in shared memory, for processes that cannot be handed a stream of them."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from evomerge_optuna.models.shards import NamedTensor, write_tensors

_SHARED = Path("/dev/shm")  # of Linux: files that are memory
_PREFIX = "evomerge-candidate-"


@contextmanager
def written(tensors: Iterable[NamedTensor], size: int) -> Iterator[Path]:
    """A folder with the tensors as a checkpoint has them, which is removed after the block.

    Args:
        size: of the tensors, in bytes.

    Raises:
        OSError: they cannot be written.
    """
    with folder_in_memory(size) as folder:
        write_tensors(folder, tensors)
        yield folder


@contextmanager
def folder_in_memory(size: int) -> Iterator[Path]:
    """An empty folder, which is removed after the block.

    It is in memory where there is room for so many bytes, else among temporary files.

    Raises:
        OSError: it cannot be made.
    """
    place = _SHARED if _has_room(size) else None
    name = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)


def remove_leftovers() -> None:
    """Removes what processes left in memory that were killed while they had it there."""
    for folder in _SHARED.glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _has_room(size: int) -> bool:
    return os.access(_SHARED, os.W_OK) and shutil.disk_usage(_SHARED).free > size
