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
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from evomerge_optuna.devices import Lane
from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.models.shards import read_tensors

if TYPE_CHECKING:
    import torch

_BLOCK = 2**20  # bytes
_PENDING = 256  # blocks, so that few tensors are held at a time
_FOLLOWING = 2  # tensors that nobody else holds and that are not copied yet


class Digest:
    """Takes the digest of tensors that come one by one, in any order.

    Args:
        lane: to the device where the tensors are. They are copied from there and hashed by threads
            while the device does other work; None: they are in the machine's memory, where hashing
            takes the cores from those who would work meanwhile.

    Example:
        >>> import torch
        >>> digest = Digest()
        >>> digest.add("b", torch.ones(2))
        >>> digest.add_held("a", torch.zeros(3))
        >>> digest.hexdigest() == digest_tensors({"a": torch.zeros(3), "b": torch.ones(2)})
        True
    """

    def __init__(self, lane: Lane | None = None) -> None:
        self._lane = lane
        self._follower: ThreadPoolExecutor | None = None  # copies tensors and has them hashed
        self._followed: list[Future[None]] = []
        self._free = BoundedSemaphore(_FOLLOWING)
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
        if self._lane is None:
            self._hash(name, tensor)
            return
        self._free.acquire()
        self._follow(name, tensor).add_done_callback(lambda _: self._free.release())

    def add_held(self, name: str, tensor: "torch.Tensor") -> None:
        """Adds a tensor that is in memory anyway, and stays as it is until `hexdigest`.

        Without a lane it is hashed only in `complete`, since merging and hashing by turns is
        slower: torch's idle threads would take the cores from those that hash.
        """
        if self._lane is None:
            self._held[name] = tensor
        else:
            self._check(name, tensor)
            self._follow(name, tensor)

    def complete(self) -> None:
        """All tensors were added. Threads may go on hashing those that are on a device.

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
        if self._lane is None:
            self._collect_all()

    def wait(self) -> None:
        """Until no thread reads the tensors any more, which may then be changed."""
        if self._follower is not None:
            self._follower.shutdown()
            self._follower = None
        if self._threads is not None:  # which read what was in the machine's memory anyway
            self._threads.shutdown()
            self._threads = None

    def hexdigest(self) -> str:
        """The digest of all tensors that were added.

        Raises:
            NotFiniteError: see `complete`.
        """
        self.complete()
        self.wait()
        for followed in self._followed:
            followed.result()
        self._collect_all()
        whole = hashlib.sha256()
        for name in sorted(self._hashes):
            whole.update(self._hashes[name])
        return whole.hexdigest()

    def _check(self, name: str, tensor: "torch.Tensor") -> None:
        if not is_finite(tensor.detach()):
            self._not_finite.append(name)

    def _follow(self, name: str, tensor: "torch.Tensor") -> Future[None]:
        """Has a thread hash a tensor as it is once the device has done what it was told so far."""
        assert self._lane is not None
        if self._follower is None:
            self._follower = ThreadPoolExecutor(1)
        fetch = self._lane.fetch(tensor.detach())
        self._followed.append(self._follower.submit(lambda: self._hash(name, fetch())))
        return self._followed[-1]

    def _hash(self, name: str, tensor: "torch.Tensor") -> None:
        import torch

        if self._threads is None:
            self._threads = ThreadPoolExecutor(torch.get_num_threads())
        own = self._hashes[name] = bytearray()
        for block in _blocks(name, tensor.detach().cpu()):
            self._pending.append((own, self._threads.submit(_sha256, block)))
            if len(self._pending) > _PENDING:
                self._collect()

    def _collect_all(self) -> None:
        while self._pending:
            self._collect()
        self.wait()

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
