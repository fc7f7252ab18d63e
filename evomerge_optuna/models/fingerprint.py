"""The SHA-256 of a checkpoint's files, by which a model is known again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.home import home
from evomerge_optuna.models.pipelines import (
    PIPELINE_INDEX,
    checkpoint_folders,
    component_folders,
    is_pipeline,
    tokenizer_folders,
)
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
        if is_pipeline(folder):
            return _fingerprint_of_pipeline(folder)
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


def _fingerprint_of_pipeline(folder: Path) -> Fingerprint:
    """The scheduler counts with the tokenizers: both say what becomes of a prompt."""
    configs = [place / "config.json" for place in component_folders(folder).values()]
    beside = [f for place in tokenizer_folders(folder) for f in sorted(place.iterdir())]
    weights = [file for place in checkpoint_folders(folder) for file in weight_files(place)]
    return Fingerprint(
        config=_together([folder / PIPELINE_INDEX, *(f for f in configs if f.is_file())], folder),
        weights=_together(weights, folder),
        tokenizer=_together([f for f in beside if f.is_file()], folder),
    )


def _together(files: Sequence[Path], folder: Path | None = None) -> str:
    """One hash of the files with their names; with their paths from a folder, if that is given."""
    names = [file.name if folder is None else str(file.relative_to(folder)) for file in files]
    lines = [f"{name}:{sha256_of(file)}\n" for name, file in zip(names, files, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _joined(*digests: str) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(file: Path) -> str:
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
