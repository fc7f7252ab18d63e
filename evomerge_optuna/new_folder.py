"""A new folder that is there whole or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge_optuna.errors import ExportError, UsageError


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
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same number
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        # A failed copy names its source first.
        place = str(error.filename2 or error.filename or folder)
        if place.startswith(str(temporary)):  # which is gone by now
            place = str(folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(
                f"{place}: no space left; nothing was exported: free some, or name another folder"
            ) from error
        raise ExportError(f"{place}: {error.strerror or error}; nothing was exported") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
