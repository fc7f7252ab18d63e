"""A proxy of a storage for hundreds of workers, which need no connection to the database then.

Optuna's gRPC storage proxy serves the trials, and beside it one service of our own the locks. A
lock is a stream: it is held as long as the stream lasts, and a client that dies ends its streams.
"""

import json
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from queue import Empty, SimpleQueue

import grpc
import optuna
from optuna.storages import BaseStorage, GrpcStorageProxy

from evomerge_optuna.errors import EvomergeError, StorageError
from evomerge_optuna.store.faults import patience
from evomerge_optuna.store.lock import GRACE, Lease, Locks
from evomerge_optuna.store.optuna_internals import serve_trials
from evomerge_optuna.store.store import Store

_SERVICE = "evomerge.Locks"
_THREADS = 2000  # a worker's lease takes one
_CONNECT = 30.0  # seconds to reach the proxy
_PAUSE = 1.0  # seconds between two tries to take a lease again
# Pings are answered by gRPC's own threads, so that a busy interpreter is not taken for a dead one.
_OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 30_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def serve(
    store: Store, host: str, port: int, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serves trials and locks until it is interrupted; calls `on_ready` with its URL.

    Raises:
        EvomergeError: the address cannot be bound.
    """
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    serve_trials(store.rdb, server)
    server.add_generic_rpc_handlers((_handlers(store.locks),))
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise EvomergeError(f"{host}:{port}: cannot be bound; choose another --port") from error
    with patience(store.url, store.rdb):
        server.start()
        on_ready(f"grpc://{host}:{bound}")
        try:
            server.wait_for_termination()
        finally:
            server.stop(grace=None).wait()


def connect(host: str, port: int) -> tuple[BaseStorage, Locks]:
    """The storage and the locks behind a proxy.

    Raises:
        StorageError: it does not answer.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = GrpcStorageProxy(host=host, port=port)
    try:
        storage.wait_server_ready(_CONNECT)
    except ConnectionError as error:
        raise StorageError(
            f"grpc://{host}:{port} does not answer; is evomerge-optuna storage serve running there?"
        ) from error
    return storage, RemoteLocks(grpc.insecure_channel(f"{host}:{port}", options=_OPTIONS))


class RemoteLocks:
    """Locks behind a proxy; see `Locks`."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    @contextmanager
    def locked(self, key: str, patience: float) -> Iterator[bool]:
        done = threading.Event()
        answers = self._stream("locked", [key, patience], done, timeout=patience + _CONNECT)
        try:
            yield json.loads(next(answers))
        except BaseException:
            answers.cancel()
            raise
        finally:
            done.set()
        deque(answers, maxlen=0)  # until it is let go; raises where it was lost before

    @contextmanager
    def lease(self, worker: str) -> Iterator[Lease]:
        over = threading.Event()
        leases: SimpleQueue[Lease] = SimpleQueue()

        def keep() -> None:
            while not over.is_set():
                with suppress(grpc.RpcError):
                    for answer in self._stream("lease", worker, over):
                        leases.put(Lease(**json.loads(answer)))
                over.wait(_PAUSE)  # the proxy is gone: it is taken again when that is back

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield leases.get(timeout=_CONNECT)
        except Empty as error:
            raise StorageError("the storage's proxy lends no lease; is it overloaded?") from error
        finally:
            over.set()
            keeper.join(_CONNECT)

    def is_alive(self, lease: Lease) -> bool:
        ask = self._channel.unary_unary(f"/{_SERVICE}/is_alive")
        return bool(json.loads(ask(json.dumps(asdict(lease)).encode())))

    def _stream(
        self, method: str, request: object, done: threading.Event, timeout: float | None = None
    ) -> "grpc.CallIterator[bytes]":
        """A stream that the server ends once this is done."""

        def requests() -> Iterator[bytes]:
            yield json.dumps(request).encode()
            done.wait()

        call = self._channel.stream_stream(f"/{_SERVICE}/{method}")
        return call(requests(), timeout=timeout, wait_for_ready=True)


def _handlers(locks: Locks) -> grpc.GenericRpcHandler:
    """The server's side of `RemoteLocks`."""
    start, began = time.time(), time.monotonic()

    def locked(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        key, patience = json.loads(next(requests))
        with locks.locked(key, patience) as free:
            yield json.dumps(free).encode()
            deque(requests, maxlen=0)  # until the client is done, or gone

    def lease(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        with locks.lease(json.loads(next(requests))) as lent:
            yield json.dumps(asdict(replace(lent, proxy_start=start))).encode()
            deque(requests, maxlen=0)

    def is_alive(request: bytes, _: grpc.ServicerContext) -> bytes:
        lent = Lease(**json.loads(request))
        has_forgotten = lent.proxy_start not in (0.0, start)
        has_just_started = has_forgotten and time.monotonic() - began < GRACE
        return json.dumps(has_just_started or locks.is_alive(lent)).encode()

    methods = {
        "locked": grpc.stream_stream_rpc_method_handler(locked),
        "lease": grpc.stream_stream_rpc_method_handler(lease),
        "is_alive": grpc.unary_unary_rpc_method_handler(is_alive),
    }
    return grpc.method_handlers_generic_handler(_SERVICE, methods)
