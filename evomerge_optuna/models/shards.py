"""Checkpoints' weights on disk: named tensors are read and written one after the other."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evomerge_optuna.errors import SpecError

if TYPE_CHECKING:
    import torch

NamedTensor: TypeAlias = "tuple[str, torch.Tensor]"

_SHARD = 5 * 10**9  # bytes
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_UNNAMED = "model-{:05}.safetensors"  # while it is not known how many there are


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


def read_tensors(
    folder: Path, rename: Callable[[str], str | None] = str
) -> "Iterator[NamedTensor]":
    """A checkpoint's tensors, one after the other.

    Args:
        rename: gives a tensor's new name, or None where it is to be left out.

    Raises:
        OSError: a file cannot be read.
    """
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if (new := rename(name)) is not None:
                    yield new, file.get_tensor(name)


def write_tensors(folder: Path, tensors: "Iterable[NamedTensor]", most: int = _SHARD) -> None:
    """Writes a checkpoint's weights into one file, or into several with an index.

    Args:
        most: bytes of a file, unless a single tensor has more.

    Raises:
        OSError: a file cannot be written.
    """
    from safetensors.torch import save_file

    numbers: dict[str, int] = {}  # of each tensor's file
    size = count = 0
    for count, shard in enumerate(_in_shards(tensors, most), start=1):
        save_file(shard, folder / _UNNAMED.format(count), metadata={"format": "pt"})
        numbers |= dict.fromkeys(shard, count)
        size += sum(tensor.nbytes for tensor in shard.values())
    names = {n: f"model-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)}
    if count == 1:
        names = {1: SINGLE}
    for number, name in names.items():
        (folder / _UNNAMED.format(number)).rename(folder / name)
    if count > 1:
        places = {tensor: names[number] for tensor, number in numbers.items()}
        index = {"metadata": {"total_size": size}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _in_shards(tensors: "Iterable[NamedTensor]", most: int) -> "Iterator[dict[str, torch.Tensor]]":
    """The tensors by name in shards of up to `most` bytes, each tensor a copy of its own."""
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > most:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.cpu().contiguous().clone()  # safetensors refuses shared memory
        size += tensor.nbytes
    if shard:
        yield shard
