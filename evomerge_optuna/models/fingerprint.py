"""The SHA-256 of a checkpoint's files, by which a model is known again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.home import home
from evomerge_optuna.models.shards import weight_files


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a checkpoint's files: config.json, weights, and what turns inputs into tokens."""

    config: str
    weights: str
    tokenizer: str


# What beside the weights decides how a text is read and where an answer ends.
TOKENIZER_FILES = (
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
# What decides how a model that takes images reads one.
PROCESSOR_FILES = (
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)


def fingerprint(folder: Path, adapter: Path | None = None) -> Fingerprint:
    """Hashes a checkpoint's files; a file's hash is kept, by its path, size and time.

    Args:
        adapter: the folder of an adapter that goes with it; its files count, too.

    Raises:
        EvomergeError: a file cannot be read.
    """
    read = (*TOKENIZER_FILES, *PROCESSOR_FILES)
    try:
        own = Fingerprint(
            config=_sha256(folder / "config.json"),
            weights=_together(weight_files(folder)),
            tokenizer=_together([f for name in read if (f := folder / name).is_file()]),
        )
        if adapter is None:
            return own
        beside = [f for name in TOKENIZER_FILES if (f := adapter / name).is_file()]
        return replace(
            own,
            tokenizer=_joined(own.tokenizer, _together(beside)) if beside else own.tokenizer,
            config=_joined(own.config, _together([adapter / "adapter_config.json"])),
            weights=_joined(own.weights, _together(sorted(adapter.glob("*.safetensors")))),
        )
    except OSError as error:
        raise EvomergeError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _together(files: Sequence[Path]) -> str:
    lines = [f"{file.name}:{_cached_sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _joined(*digests: str) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


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
