"""Names for what a spec names: models by their paths or ids, and studies."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from evomerge_optuna.spec.single_file import split_single_file

_TAKEN = ("base", "union", "merged")  # mean something else where a spec names a model


def alias(model: str, taken: Iterable[str] = ()) -> str:
    """A short name of a model: the last part of its path or id, of an adapter that of the adapter.

    Args:
        taken: names that others have.
    """
    file, _ = split_single_file(model)
    last = file.removesuffix(".safetensors").rpartition("+")[2].partition("@")[0]
    return unlike(plain(os.path.basename(last.rstrip("/")) or last), (*taken, *_TAKEN))


def plain(text: str) -> str:
    """The text with what names may have: letters, digits, '_' and '-'."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text.removeprefix("zoo:")).strip("_-") or "model"


def unlike(name: str, taken: Iterable[str]) -> str:
    """The name, with a number after it where others have it."""
    known = set(taken)
    numbered = (f"{name}_{number}" for number in range(2, len(known) + 3))
    return name if name not in known else next(n for n in numbered if n not in known)


def seen_from(folder: Path, path: str) -> str:
    """A local path as a spec in this folder has it, with `./` before it; any other name as it is.

    Of a model and its adapter each part is such a name.
    """
    if "+" in path and not os.path.exists(os.path.expanduser(path)):
        return "+".join(seen_from(folder, part) for part in path.split("+"))
    if path.startswith(("~", "/")) or not os.path.exists(path):
        return path
    relative = os.path.relpath(path, folder)
    return relative if relative.startswith("..") else f"./{relative}"
