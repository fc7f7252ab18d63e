"""Local folders: `./model`, `/models/model`, `~/model`, or the name of a folder that is there."""

import os
from pathlib import Path

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.sources.base import CHECKPOINT, Content, Location, Source, is_path


class PathSource(Source):
    """Folders with checkpoints, or with adapters."""

    def __init__(self, content: Content = CHECKPOINT) -> None:
        self._content = content

    def recognises(self, name: str) -> bool:
        return is_path(name)

    def check(self, name: str, key: str) -> None:
        self._content.check(_existing_folder(name, key), f"{key}: {name}")

    def location(self, name: str) -> Location:
        return os.path.expanduser(name), None

    def folder(self, name: str) -> Path:
        return Path(os.path.expanduser(name))


def _existing_folder(path: str, key: str) -> Path:
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        raise SpecError(f"{key}: there is no folder {path}; correct the path")
    if "@" in folder:
        raise SpecError(
            f"{key}: {path}: mergekit takes what follows '@' for a revision; rename the folder"
        )
    return Path(folder)
