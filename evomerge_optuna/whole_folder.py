"""A folder that is there whole or not at all, whatever is killed when."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(folder: Path, mark: str = "") -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its name at the end of the block.

    It is removed if the block fails, and so is what a killed process left under its name.

    Args:
        folder: must not exist, and nobody else writes it unless with another mark.
        mark: is part of the temporary folder's name.

    Raises:
        OSError: it cannot be made or renamed.
    """
    temporary = folder.with_name(f".{folder.name}{mark}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
