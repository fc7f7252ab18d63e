"""What a checkpoint hashes to: its files (to know a model again) and its tensors (to compare)."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import EvomergeError, NotFiniteError
from evomerge_optuna.home import home

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a checkpoint's files: config.json, weights, and what turns text into tokens."""

    config: str
    weights: str
    tokenizer: str


# What beside the weights decides how a text is read and where an answer ends.
_TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


def fingerprint(folder: Path) -> Fingerprint:
    """Hashes a checkpoint's files; a file's hash is kept, by its path, size and time.

    Raises:
        EvomergeError: a file cannot be read.
    """
    try:
        return Fingerprint(
            config=_sha256(folder / "config.json"),
            weights=_together(sorted(folder.glob("*.safetensors"))),
            tokenizer=_together([f for n in _TOKENIZER_FILES if (f := folder / n).is_file()]),
        )
    except OSError as error:
        raise EvomergeError(f"{error.filename}: cannot be read: {error.strerror}") from error


def digest_tensors(folder: Path) -> str:
    """SHA-256 over a checkpoint's tensors: name, dtype, shape and bytes, in order of name.

    The order and the sharding of the files make no difference.

    Raises:
        NotFiniteError: a tensor has a NaN or an infinite value.
    """
    from safetensors import safe_open

    files = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            files.update(dict.fromkeys(opened.keys(), file))
    digest = hashlib.sha256()
    for name in sorted(files):
        with safe_open(files[name], framework="pt") as opened:
            tensor = opened.get_tensor(name)
        if not tensor.isfinite().all():
            raise NotFiniteError(f"tensor {name} has NaN or infinite values")
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(header).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: "torch.Tensor") -> memoryview:
    import torch

    flat = tensor.contiguous().view(-1) if math.prod(tensor.shape) else tensor.reshape(0)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


def _together(files: Sequence[Path]) -> str:
    lines = [f"{file.name}:{_cached_sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cached_sha256(file: Path) -> str:
    """A 7B model takes half a minute to hash, and is asked for at every start."""
    real = file.resolve()
    status = real.stat()
    key = f"{real}:{status.st_size}:{status.st_mtime_ns}"
    note = home() / "hashes" / hashlib.sha256(key.encode()).hexdigest()
    if note.is_file() and len(known := note.read_text()) == 64:
        return known
    result = _sha256(real)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(result)
    return result
