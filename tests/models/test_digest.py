"""The digest knows a changed byte, and not in which order and files the tensors are."""

import hashlib
import json
import threading
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.devices import Lane
from evomerge_optuna.errors import CandidateError
from evomerge_optuna.models import digest as digest_module
from evomerge_optuna.models.digest import Digest, digest_files, digest_tensors
from evomerge_optuna.models.shards import write_tensors

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(2, dtype=torch.bfloat16),
    "c": torch.tensor(3.0),
    "d": torch.zeros(0, 4),
}


def folder_of(root: Path, name: str, tensors: dict[str, torch.Tensor], most: int = 10**9) -> Path:
    folder = root / name
    folder.mkdir()
    write_tensors(folder, tensors.items(), most)
    return folder


def test_sharding_makes_no_difference(tmp_path: Path) -> None:
    whole = folder_of(tmp_path, "whole", TENSORS)
    split = folder_of(tmp_path, "split", {n: TENSORS[n] for n in reversed(TENSORS)}, most=1)
    assert len(list(split.glob("*.safetensors"))) == len(TENSORS)
    assert digest_files(whole) == digest_files(split)


@pytest.mark.parametrize(
    "change",
    [
        {"a": TENSORS["a"].reshape(3, 2)},
        {"a": TENSORS["a"].double()},
        {"b": torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)},
    ],
)
def test_shape_dtype_and_value_count(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    before = digest_files(folder_of(tmp_path, "before", TENSORS))
    assert digest_files(folder_of(tmp_path, "after", TENSORS | change)) != before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    folder = folder_of(tmp_path, "bad", TENSORS | {"a": torch.tensor([0.0, value])})
    with pytest.raises(CandidateError, match="tensor a has NaN or infinite values"):
        digest_files(folder)


def as_defined(tensors: dict[str, torch.Tensor]) -> str:
    """The definition, step by step."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        whole.update(hashlib.sha256(json.dumps(header).encode()).digest())
        content = bytes(tensor.contiguous().flatten().view(torch.uint8).numpy())
        for start in range(0, len(content), 2**20):
            whole.update(hashlib.sha256(content[start : start + 2**20]).digest())
    return whole.hexdigest()


DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]


@given(
    order=st.permutations(range(6)),
    held=st.sets(st.integers(0, 5)),
    dtypes=st.lists(st.sampled_from(DTYPES), min_size=6, max_size=6),
)
def test_tensors_one_by_one_in_any_order(
    order: list[int], held: set[int], dtypes: list[torch.dtype]
) -> None:
    shapes = [(3, 5), (700, 800), (1,), (), (0, 4), (2**19, 3)]
    tensors = {
        f"{number}.weight": torch.full(shape, number).to(dtype)
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    }
    digest = Digest()
    for number in order:
        name = f"{number}.weight"
        (digest.add_held if number in held else digest.add)(name, tensors[name])
    assert digest.hexdigest() == digest_tensors(tensors) == as_defined(tensors)


def test_the_first_by_name_of_those_that_are_not_finite_is_named() -> None:
    digest = Digest()
    digest.add("c", torch.tensor(float("nan")))
    digest.add_held("b", torch.tensor(float("inf")))
    digest.add("a", torch.tensor(1.0))
    with pytest.raises(CandidateError, match="tensor b has NaN or infinite values"):
        digest.hexdigest()


def test_threads_that_follow_give_the_same() -> None:
    digest = Digest(Lane("cpu"))
    for name in "abcd":
        (digest.add if name in "ab" else digest.add_held)(name, TENSORS[name])
    digest.complete()
    assert digest.hexdigest() == digest.hexdigest() == as_defined(TENSORS)


def test_tensors_may_be_changed_once_one_has_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in the machine's memory, too, which are hashed where they are."""
    begun, hashed = threading.Event(), digest_module._sha256

    def slowly(block: bytes | memoryview) -> bytes:
        begun.set()
        time.sleep(0.02)
        return hashed(block)

    tensors = {"a": torch.ones(2**20), "b": torch.zeros(2**20)}
    expected = as_defined(tensors)
    monkeypatch.setattr(digest_module, "_sha256", slowly)
    digest = Digest(Lane("cpu"))
    digest.add_held("a", tensors["a"])
    digest.add("b", tensors["b"])
    assert begun.wait(60)
    digest.wait()
    for tensor in tensors.values():
        tensor.fill_(2)
    assert digest.hexdigest() == expected


def test_they_report_what_is_not_finite_before_anything_is_hashed() -> None:
    digest = Digest(Lane("cpu"))
    digest.add_held("a", torch.tensor([float("nan")]))
    with pytest.raises(CandidateError, match="tensor a has NaN or infinite values"):
        digest.complete()
    digest.wait()


def test_what_goes_wrong_in_their_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(Lane, "fetch", lambda *_: fail)
    digest = Digest(Lane("cpu"))
    for name in "abc":  # more than are followed at a time
        digest.add(name, TENSORS[name])
    with pytest.raises(MemoryError):
        digest.hexdigest()
