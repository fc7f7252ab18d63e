"""What is needed next is made ready meanwhile, and no more than that."""

import threading
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge_optuna.merging.ahead import ahead, read_through


def test_the_next_one_is_under_way_and_no_other() -> None:
    begun = [threading.Event() for _ in range(4)]

    def job(number: int) -> int:
        begun[number].set()
        return number

    with ahead([lambda number=number: job(number) for number in range(4)]) as items:
        assert begun[0].wait(60)
        for number in range(3):
            assert next(items) == number
            assert begun[number + 1].wait(60)
            assert not any(event.is_set() for event in begun[number + 2 :])
        assert list(items) == [3]


def test_no_more_than_two_are_there_at_a_time() -> None:
    """Not the first one either, which is often the largest: the embeddings."""
    made: list[weakref.ref[torch.Tensor]] = []
    begun = [threading.Event() for _ in range(6)]

    def job(number: int) -> torch.Tensor:
        found = torch.ones(3)
        made.append(weakref.ref(found))
        begun[number].set()
        return found

    with ahead([lambda number=number: job(number) for number in range(6)]) as items:
        for number, item in enumerate(items):
            assert item is made[number]()
            assert begun[min(number + 1, 5)].wait(60)
            assert all(old() is None for old in made[:number])
            del item


def test_nothing_to_do() -> None:
    with ahead([]) as items:
        assert list(items) == []


def test_what_a_job_raises_is_raised_where_it_is_needed() -> None:
    def fail() -> int:
        raise OSError("gone")

    with ahead([lambda: 1, fail]) as items:
        assert next(items) == 1
        with pytest.raises(OSError, match="gone"):
            next(items)


def test_who_stops_early_waits_for_the_one_under_way() -> None:
    done = threading.Event()
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), ahead([lambda: 1, done.set, done.clear]) as items:
        next(items)
        raise KeyboardInterrupt
    assert done.is_set() and threading.active_count() == before


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5000)])
def test_reading_through_changes_nothing(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(torch.Size(shape).numel(), dtype=torch.bfloat16).reshape(shape)
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    mapped = load_file(tmp_path / "x.safetensors")["x"]
    assert read_through(mapped) is mapped
    assert torch.equal(mapped, tensor)
    assert torch.equal(read_through(tensor[..., ::2]), tensor[..., ::2])
