"""What a model's tensors are, from the headers of its files alone; no weight is read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.files import check_types
from evomerge_optuna.models.layout import meta_model
from evomerge_optuna.models.pipelines import single_name
from evomerge_optuna.models.shards import single_and_index, weight_files, weight_map

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

# safetensors' names of the types that a spec may name.
STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
ANOTHER_COPY = "take another copy of the model, or leave it out"


class OpenFile(Protocol):
    """A safetensors file that is open."""

    def keys(self) -> list[str]: ...
    def get_slice(self, name: str) -> "Slice": ...
    def get_tensor(self, name: str) -> "torch.Tensor": ...


class Slice(Protocol):
    """A tensor in an open file, before its values are read."""

    def get_shape(self) -> list[int]: ...
    def get_dtype(self) -> str: ...


@dataclass(frozen=True)
class Header:
    """A tensor's shape and type as it is stored, by safetensors' name of it, as BF16 or BOOL."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        bits = re.search(r"\d+", self.dtype)
        return int(bits[0]) // 8 if bits else 1

    @property
    def count(self) -> int:
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the tensor."""
        return self.count * self.itemsize


def headers_on_hub(repository: str, revision: str | None, model: str) -> dict[str, Header] | None:
    """Every tensor of a repository's files by name; None where the hub does not list them.

    Args:
        model: the model's place in the spec and its name, for messages.

    Raises:
        SpecError: a tensor is quantized.
    """
    from huggingface_hub import get_safetensors_metadata

    try:
        files = get_safetensors_metadata(repository, revision=revision).files_metadata.values()
    except Exception:  # no connection, no permission, no such file: seen when it is downloaded
        return None
    found = {
        tensor: Header(tuple(info.shape), info.dtype)
        for file in files
        for tensor, info in file.tensors.items()
    }
    check_types({tensor: header.dtype for tensor, header in found.items()}, model)
    return found


def component_headers_on_hub(
    repository: str, revision: str | None, folder: Path, model: str
) -> dict[str, Header] | None:
    """Every tensor of a pipeline's component on the hub; None where the hub does not list them.

    Args:
        folder: with the component's small files, by whose name the hub has them.
        model: as of `headers_on_hub`.

    Raises:
        SpecError: a tensor is quantized.
    """
    from huggingface_hub import parse_safetensors_file_metadata

    found: dict[str, Header] = {}
    try:
        for file in _file_names(folder):
            path = f"{folder.name}/{file}"
            listed = parse_safetensors_file_metadata(repository, path, revision=revision)
            for tensor, info in listed.tensors.items():
                found[tensor] = Header(tuple(info.shape), info.dtype)
    except Exception:  # as above
        return None
    check_types({tensor: header.dtype for tensor, header in found.items()}, model)
    return found


def _file_names(folder: Path) -> list[str]:
    """The weight files of a component of which only the index may be here, if it has one."""
    _, index = single_and_index(folder)
    if (folder / index).is_file():
        return sorted(set(weight_map(folder).values()))
    return [single_name(folder)]


def headers_in(folder: Path, model: str) -> dict[str, Header]:
    """Every tensor of a checkpoint's files by name.

    Raises:
        SpecError: naming the model: a file cannot be read.
    """
    found: dict[str, Header] = {}
    for file in weight_files(folder):
        with opened(model, file) as tensors:
            for name in tensors.keys():  # noqa: SIM118
                part = tensors.get_slice(name)
                found[name] = Header(tuple(part.get_shape()), part.get_dtype())
    return found


def parameter_shapes(config: "PretrainedConfig", key: str) -> dict[str, tuple[int, ...]]:
    """Every parameter's shape, from a model on the meta device: nothing is allocated.

    Raises:
        SpecError: naming `key`: there is no model of this configuration.
    """
    model = meta_model(config, key)
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


@contextmanager
def opened(model: str, file: Path) -> Iterator[OpenFile]:
    """A safetensors file, opened to be read.

    Raises:
        SpecError: naming the model and the file: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise SpecError(f"{model}: {file.name} cannot be read: {error}; {ANOTHER_COPY}") from error
