"""A new folder that is there whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge_optuna.errors import ExportError, UsageError
from evomerge_optuna.whole_folder import whole_folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its name at the end, or is removed.

    Raises:
        UsageError: the folder exists; nothing is ever overwritten.
        ExportError: a file cannot be written, or the disk is full.
    """
    folder = folder.absolute()
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; an export never overwrites, name another folder")
    try:
        with whole_folder(folder, f".{os.getpid()}") as temporary:
            yield temporary
    except OSError as error:
        # A failed copy names its source first.
        place = str(error.filename2 or error.filename or folder)
        if place.startswith(str(folder.with_name(f".{folder.name}."))):  # which is gone by now
            place = str(folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(
                f"{place}: no space left; nothing was exported: free some, or name another folder"
            ) from error
        raise ExportError(f"{place}: {error.strerror or error}; nothing was exported") from error
