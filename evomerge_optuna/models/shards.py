"""Checkpoints' weights on disk, one safetensors file at a time."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]


_SHARD = 5 * 10**9  # bytes
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """A checkpoint's safetensors files, as mergekit finds them: those of its index, or the one.

    Some repositories have the same weights a second time in a layout of their own, as
    `consolidated.safetensors`; nobody reads those.

    Raises:
        SpecError: the index cannot be read.
    """
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(weight_map(folder).values()))]
    return [one] if (one := folder / SINGLE).is_file() else []


def weight_map(folder: Path) -> dict[str, str]:
    """The name of each tensor's file, as the index of a checkpoint has them.

    Raises:
        SpecError: the index cannot be read.
    """
    index = folder / INDEX
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(tensor): str(file) for tensor, file in named.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SpecError(f"{index} cannot be read; take another copy of the model") from error


def tensor_names(folder: Path) -> list[str]:
    """The names of a checkpoint's tensors."""
    from safetensors import safe_open

    names: list[str] = []
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            names += file.keys()
    return names


def read_shards(folder: Path, rename: Callable[[str], str | None]) -> Iterator[Tensors]:
    """The tensors of each of a checkpoint's files by new names; those that have none are left out.

    Raises:
        OSError: a file cannot be read.
    """
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            names = {name: rename(name) for name in file.keys()}  # noqa: SIM118
            yield {new: file.get_tensor(name) for name, new in names.items() if new is not None}


def in_shards(tensors: "Iterable[tuple[str, torch.Tensor]]") -> Iterator[Tensors]:
    """Named tensors in shards of up to 5 GB, each a copy of its own."""
    shard: Tensors = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > _SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.cpu().contiguous().clone()  # several may be parts of one
        size += tensor.nbytes
    yield shard


def write_shards(folder: Path, shards: Iterable[Tensors]) -> None:
    """Writes a checkpoint's weights, a file for each shard that is not empty, and their index.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save_file

    places: dict[str, str] = {}
    size = 0
    for number, tensors in enumerate(filter(None, shards), start=1):
        file = f"model-{number:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
        size += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    text = json.dumps(index, indent=2)
    (folder / INDEX).write_text(text, encoding="utf-8")
