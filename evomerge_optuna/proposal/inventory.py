"""What lies in a folder that a study could be made of: models, adapters, judges, data."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evomerge_optuna.evaluation.tables import kind_of
from evomerge_optuna.home import home
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from evomerge_optuna.models.pipelines import is_pipeline

_DEPTH = 2  # of folders that are looked into
_MANY = 500  # folders, after which no more are looked into
_JUDGES = ("clip", "siglip", "siglip2")
_NO_DATA = (".json",)  # a file of that ending is mostly something else


@dataclass(frozen=True)
class Inventory:
    """Paths as a user would type them in this folder, each in the order of the names.

    Attributes:
        models: checkpoints, or pipelines.
        adapters: folders of peft's adapters.
        judges: models of the kind of CLIP.
        data: files that may hold problems.
    """

    models: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    data: tuple[str, ...] = ()


def look_around(folder: Path) -> Inventory:
    """What lies in a folder and in those that it holds; nothing is opened but small files."""
    found: dict[str, list[str]] = {"models": [], "adapters": [], "judges": [], "data": []}
    for number, (place, files) in enumerate(_folders(folder, _DEPTH)):
        if number == _MANY:
            break
        kind = kind_of_folder(place)
        if kind is not None:
            found[kind].append(str(place.relative_to(folder)))
            continue
        found["data"] += [
            str(file.relative_to(folder))
            for file in files
            if kind_of(file) and kind_of(file) not in _NO_DATA
        ]
    return Inventory(**{name: tuple(paths) for name, paths in found.items()})


def kind_of_folder(folder: Path) -> str | None:
    """Which field of `Inventory` names a folder of this content; None: it is none of a model."""
    if is_pipeline(folder):
        return "models"
    if (folder / "config.json").is_file():
        kind = small_json(folder / "config.json").get("model_type")
        is_model = any(folder.glob("*.safetensors"))
        return None if not is_model else "judges" if kind in _JUDGES else "models"
    if (folder / ADAPTER_CONFIG).is_file() and (folder / ADAPTER_WEIGHTS).is_file():
        return "adapters"
    return None


def small_json(file: Path) -> dict[str, object]:
    """The content of a model's file of settings; nothing where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _folders(folder: Path, depth: int) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and those in it, but for those of models, hidden ones and this program's own."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    yield folder, [Path(entry.path) for entry in entries if entry.is_file()]
    if depth == 0 or kind_of_folder(folder) is not None:
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.is_dir() and not entry.name.startswith(".") and path.absolute() != home():
            yield from _folders(path, depth - 1)
