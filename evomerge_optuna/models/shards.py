"""Checkpoints' weights on disk, one safetensors file at a time."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]


def tensor_names(folder: Path) -> list[str]:
    """The names of a checkpoint's tensors."""
    from safetensors import safe_open

    names: list[str] = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names += file.keys()
    return names


def read_shards(folder: Path, rename: Callable[[str], str | None]) -> Iterator[Tensors]:
    """The tensors of each of a checkpoint's files by new names; those that have none are left out.

    Raises:
        OSError: a file cannot be read.
    """
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = {name: rename(name) for name in file.keys()}  # noqa: SIM118
            yield {new: file.get_tensor(name) for name, new in names.items() if new is not None}


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
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
