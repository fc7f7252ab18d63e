"""The zoo's files as they come with the package: float16, and each only once.

A group of models is a folder here. In it the folder `common` has the files that all of them have,
and a folder of each model's name has its own. Weights are float16, which every processor reads
alike; models are written out in float32, in which they were trained and are merged.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import EvomergeError

if TYPE_CHECKING:
    import torch

SHIPPED = Path(__file__).parent / "weights"

_COMMON = "common"
_WEIGHTS = ".safetensors"


def digest(folder: Path) -> str:
    """SHA-256 over all files below a folder: of their names there, and of what is in them."""
    together = hashlib.sha256()
    for name, file in sorted(_files(folder).items()):
        together.update(f"{name}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return together.hexdigest()


def pack(trained: Path, members: Sequence[str], folder: Path) -> None:
    """Writes trained models, folders beside each other, as they are shipped.

    Args:
        folder: does not exist yet.

    Raises:
        EvomergeError: a weight is too large for float16.
    """
    import torch

    files = {member: _files(trained / member) for member in members}
    for member, own in files.items():
        for name, file in own.items():
            common = all(name in other and _equal(file, other[name]) for other in files.values())
            target = folder / (_COMMON if common else member) / name
            if not target.exists():
                _copy(file, target, torch.float16)


def unpack(shipped: Path, members: Sequence[str], folder: Path) -> None:
    """Writes the models of a shipped folder as ordinary checkpoints, in float32."""
    import torch

    for member in members:
        for name, file in (_files(shipped / _COMMON) | _files(shipped / member)).items():
            _copy(file, folder / member / name, torch.float32)


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their names there, on every system alike."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file for file in files}


def _equal(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _copy(file: Path, target: Path, dtype: "torch.dtype") -> None:
    """Copies a file; the floating-point numbers of weights become others."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix != _WEIGHTS:
        shutil.copyfile(file, target)
        return

    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(file, "pt") as weights:
        tensors = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
        metadata = weights.metadata()
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            tensors[name] = tensor.to(dtype)
            if not tensors[name].isfinite().all():
                raise EvomergeError(f"{file}: {name} has numbers too large for {dtype}")
    save_file(tensors, target, metadata)
