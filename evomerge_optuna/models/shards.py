"""Checkpoints' weights on disk: named tensors are read and written one after the other."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evomerge_optuna.errors import SpecError

if TYPE_CHECKING:
    import torch

NamedTensor: TypeAlias = "tuple[str, torch.Tensor]"

_SHARD = 5 * 10**9  # bytes
STEM, DIFFUSERS_STEM = "model", "diffusion_pytorch_model"  # of the names of weight files
SINGLE, INDEX = f"{STEM}.safetensors", f"{STEM}.safetensors.index.json"


def single_and_index(folder: Path) -> tuple[str, str]:
    """The names that the one weight file and the index of several have in this folder.

    They are those of transformers and mergekit, unless only those of diffusers are there.
    """
    single = f"{DIFFUSERS_STEM}.safetensors"
    index = f"{single}.index.json"
    own = (folder / SINGLE).is_file() or (folder / INDEX).is_file()
    theirs = (folder / single).is_file() or (folder / index).is_file()
    return (single, index) if theirs and not own else (SINGLE, INDEX)


def weight_files(folder: Path) -> list[Path]:
    """A checkpoint's safetensors files, as mergekit finds them: those of its index, or the one.

    Some repositories have the same weights a second time in a layout of their own, as
    `consolidated.safetensors`; nobody reads those.

    Raises:
        SpecError: the index cannot be read.
    """
    single, index = single_and_index(folder)
    if (folder / index).is_file():
        return [folder / name for name in sorted(set(weight_map(folder).values()))]
    return [one] if (one := folder / single).is_file() else []


def weight_map(folder: Path) -> dict[str, str]:
    """The name of each tensor's file, as the index of a checkpoint has them.

    Raises:
        SpecError: the index cannot be read.
    """
    _, name = single_and_index(folder)
    index = folder / name
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


def write_file(tensors: "dict[str, torch.Tensor]", file: Path) -> None:
    """Writes one file of tensors that share no memory.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise system_error(error, file) or error from error


def system_error(error: Exception, file: Path | None) -> OSError | None:
    """What a library in Rust, as safetensors, says that the system refused; None: nothing."""
    if (said := re.search(r"\(os error (\d+)\)", str(error))) is None:
        return None
    number = int(said[1])
    return OSError(number, os.strerror(number), str(file) if file else None)


def write_tensors(
    folder: Path, tensors: "Iterable[NamedTensor]", most: int = _SHARD, stem: str = STEM
) -> None:
    """Writes a checkpoint's weights into one file, or into several with an index.

    Args:
        most: bytes of a file, unless a single tensor has more.
        stem: of the files' names.

    Raises:
        OSError: a file cannot be written.
    """
    numbers: dict[str, int] = {}  # of each tensor's file
    size = count = 0
    for count, shard in enumerate(_in_shards(tensors, most), start=1):
        write_file(shard, folder / f"{stem}-{count:05}.safetensors")
        numbers |= dict.fromkeys(shard, count)
        size += sum(tensor.nbytes for tensor in shard.values())
    names = {n: f"{stem}-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)}
    if count == 1:
        names = {1: f"{stem}.safetensors"}
    for number, name in names.items():
        (folder / f"{stem}-{number:05}.safetensors").rename(folder / name)
    if count > 1:
        places = {tensor: names[number] for tensor, number in numbers.items()}
        index = {"metadata": {"total_size": size}, "weight_map": places}
        file = folder / f"{stem}.safetensors.index.json"
        file.write_text(json.dumps(index, indent=2), encoding="utf-8")


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
