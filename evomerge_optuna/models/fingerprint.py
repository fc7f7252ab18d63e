"""What a checkpoint hashes to: its files (to know a model again) and its tensors (to compare)."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import EvomergeError, NotFiniteError
from evomerge_optuna.home import home
from evomerge_optuna.models.shards import weight_files

if TYPE_CHECKING:
    import torch

_BLOCK = 2**20
_PENDING = 256  # blocks, so that few tensors are held at a time


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
# What decides how a vision-language model reads an image.
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


def digest_files(folder: Path, chosen: Callable[[str], bool] = lambda _: True) -> str:
    """`digest_tensors` of a checkpoint's safetensors files; their order and sharding do not count.

    Args:
        chosen: is this tensor to be counted?

    Raises:
        NotFiniteError: a tensor has a NaN or an infinite value.
    """
    from safetensors import safe_open

    with ExitStack() as opened:
        tensors: dict[str, Callable[[], torch.Tensor]] = {}
        for path in weight_files(folder):
            file = opened.enter_context(safe_open(path, framework="pt"))
            names = filter(chosen, file.keys())
            tensors |= {name: partial(file.get_tensor, name) for name in names}
        return _digest(tensors)


def digest_tensors(tensors: "Mapping[str, torch.Tensor]") -> str:
    """SHA-256 over tensors: name, dtype, shape and bytes, in order of name.

    A tree, so that every thread hashes its share: SHA-256 over the SHA-256 of each tensor's header
    and of each MiB of its bytes.

    Raises:
        NotFiniteError: a tensor has a NaN or an infinite value.
    """
    return _digest({name: tensor.detach for name, tensor in tensors.items()})


def _digest(tensors: "Mapping[str, Callable[[], torch.Tensor]]") -> str:
    import torch

    # Before the hashing and not between: torch's idle threads would take the cores from it.
    for name in sorted(tensors):
        if not is_finite(tensors[name]()):
            raise NotFiniteError(f"tensor {name} has NaN or infinite values")
    whole = hashlib.sha256()
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for name in sorted(tensors):
            for block in _blocks(name, tensors[name]().cpu()):
                pending.append(pool.submit(_sha256_of_block, block))
                if len(pending) > _PENDING:
                    whole.update(pending.popleft().result())
        for future in pending:
            whole.update(future.result())
    return whole.hexdigest()


def _blocks(name: str, tensor: "torch.Tensor") -> "Iterator[bytes | memoryview]":
    header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
    yield json.dumps(header).encode()
    content = _bytes_of(tensor)
    for start in range(0, len(content), _BLOCK):
        yield content[start : start + _BLOCK]


def is_finite(tensor: "torch.Tensor") -> bool:
    """No NaN and no infinity; as fast as memory is, unlike isfinite().all()."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # a NaN becomes both
    return bool(low.isfinite() and high.isfinite())


def _sha256_of_block(block: bytes | memoryview) -> bytes:
    return hashlib.sha256(block).digest()


def _bytes_of(tensor: "torch.Tensor") -> memoryview:
    import torch

    flat = tensor.contiguous().view(-1) if tensor.numel() else tensor.reshape(0)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


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
