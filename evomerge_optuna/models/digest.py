"""The SHA-256 of a model's tensors: equal digests mean equal weights, bit for bit.

SHA-256 over the SHA-256 of each tensor's header (name, dtype, shape) and of each MiB of its bytes,
in order of name. The order in which tensors come and the files that they are in do not count.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.models.shards import read_tensors

if TYPE_CHECKING:
    import torch

_BLOCK = 2**20  # bytes
_PENDING = 256  # blocks, so that few tensors are held at a time


class Digest:
    """Takes the digest of tensors that come one by one, in any order.

    Example:
        >>> import torch
        >>> digest = Digest()
        >>> digest.add("b", torch.ones(2))
        >>> digest.add_held("a", torch.zeros(3))
        >>> digest.hexdigest() == digest_tensors({"a": torch.zeros(3), "b": torch.ones(2)})
        True
    """

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None
        self._pending: deque[tuple[bytearray, Future[bytes]]] = deque()
        self._hashes: dict[str, bytearray] = {}  # by tensor, of its header and of each block
        self._held: dict[str, torch.Tensor] = {}
        self._not_finite: list[str] = []

    def add(self, name: str, tensor: "torch.Tensor") -> None:
        """Adds a tensor that the caller does not change from now on.

        Threads hash it at once, so that memory is needed for few of many tensors.
        """
        self._check(name, tensor)
        self._hash(name, tensor)

    def add_held(self, name: str, tensor: "torch.Tensor") -> None:
        """Adds a tensor that is in memory anyway, and stays as it is until `hexdigest`.

        Hashed only then, since merging and hashing by turns is slower: torch's idle threads would
        take the cores from those that hash.
        """
        self._held[name] = tensor

    def hexdigest(self) -> str:
        """The digest of all tensors that were added.

        Raises:
            NotFiniteError: naming a tensor with a NaN or an infinite value.
        """
        held, self._held = self._held, {}
        for name in sorted(held):
            self._check(name, held[name])
        if self._not_finite:
            raise NotFiniteError(f"tensor {min(self._not_finite)} has NaN or infinite values")
        for name in sorted(held):
            self._hash(name, held[name])
        while self._pending:
            self._collect()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        whole = hashlib.sha256()
        for name in sorted(self._hashes):
            whole.update(self._hashes[name])
        return whole.hexdigest()

    def _check(self, name: str, tensor: "torch.Tensor") -> None:
        if not is_finite(tensor.detach()):
            self._not_finite.append(name)

    def _hash(self, name: str, tensor: "torch.Tensor") -> None:
        import torch

        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads())
        own = self._hashes[name] = bytearray()
        for block in _blocks(name, tensor.detach().cpu()):
            self._pending.append((own, self._threads.submit(_sha256, block)))
            if len(self._pending) > _PENDING:
                self._collect()

    def _collect(self) -> None:
        own, future = self._pending.popleft()
        own += future.result()


def digest_tensors(tensors: "Mapping[str, torch.Tensor]") -> str:
    """The digest of tensors by name.

    Raises:
        NotFiniteError: a tensor has a NaN or an infinite value.
    """
    digest = Digest()
    for name, tensor in tensors.items():
        digest.add_held(name, tensor)
    return digest.hexdigest()


def digest_files(folder: Path, chosen: Callable[[str], bool] = lambda _: True) -> str:
    """The digest of a checkpoint's safetensors files.

    Args:
        chosen: whether a tensor of this name counts.

    Raises:
        NotFiniteError: a tensor has a NaN or an infinite value.
        OSError: a file cannot be read.
    """
    digest = Digest()
    for name, tensor in read_tensors(folder, lambda name: name if chosen(name) else None):
        digest.add(name, tensor)
    return digest.hexdigest()


def is_finite(tensor: "torch.Tensor") -> bool:
    """No NaN and no infinity; as fast as memory is, unlike isfinite().all()."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = tensor.aminmax()  # a NaN becomes both
    return bool(low.isfinite() and high.isfinite())


def _blocks(name: str, tensor: "torch.Tensor") -> "Iterator[bytes | memoryview]":
    header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
    yield json.dumps(header).encode()
    content = _bytes_of(tensor)
    for start in range(0, len(content), _BLOCK):
        yield content[start : start + _BLOCK]


def _bytes_of(tensor: "torch.Tensor") -> memoryview:
    import torch

    flat = tensor.contiguous().view(-1) if tensor.numel() else tensor.reshape(0)
    raw: memoryview = flat.view(torch.uint8).numpy().data
    return raw


def _sha256(block: bytes | memoryview) -> bytes:
    return hashlib.sha256(block).digest()
