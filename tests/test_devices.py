"""What torch calls an accelerator, as a test can tell it to."""

from functools import partial
from typing import Any

import pytest
import torch

from evomerge_optuna import devices, machine
from evomerge_optuna.devices import Accelerator, accelerators, torch_device
from evomerge_optuna.errors import SpecError
from tests.accelerators import GB, fake_accelerators


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(fake_accelerators, monkeypatch)


@pytest.fixture
def without_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def test_without_an_accelerator(without_accelerator: None) -> None:
    assert (accelerators(), torch_device("auto"), torch_device("cpu")) == ([], "cpu", "cpu")
    for name in ("cuda", "cuda:1", "mps", "xpu", "gpu", "cpu:0"):
        with pytest.raises(SpecError, match=rf"^evaluation\.device: there is no {name}, for torch"):
            torch_device(name)
    devices.give_back_unused()
    devices.take(1)
    assert not machine.this_machine("cpu").on_gpu


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_one_of_a_kind(fake: Any, kind: str) -> None:
    fake(kind, 1)
    assert accelerators() == [Accelerator(f"{kind}:0", "Card 0")]
    assert torch_device("auto") == torch_device(kind) == torch_device(f"{kind}:0") == f"{kind}:0"
    assert torch_device("cpu") == "cpu"
    for name in (f"{kind}:1", "rocm", "cpu:1"):
        with pytest.raises(
            SpecError, match=rf"there is no {name}, for torch finds {kind}:0 \(Card 0\); write one"
        ):
            torch_device(name)


def test_workers_take_them_in_turn(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("cuda", 2)
    monkeypatch.setattr(machine, "_processes", 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    machine.take_share(3, 4)
    assert (torch_device("auto"), torch_device("cuda")) == ("cuda:1", "cuda:1")
    assert torch_device("cuda:0") == "cuda:0"
    # Two of four processes on each, but all on the one that a spec names.
    assert machine.share_of(24 * GB, "auto") == machine.share_of(24 * GB, "cuda") == 12 * GB
    assert machine.share_of(24 * GB, "cuda:1") == machine.share_of(24 * GB, "cpu") == 6 * GB


def test_its_memory_is_its_own_but_on_a_mac(fake: Any) -> None:
    fake("cuda", 1)
    found = machine.this_machine("cuda:0")
    assert (found.memory, found.free, found.on_gpu) == (24 * GB, 20 * GB, True)
    assert found.host == pytest.approx(machine.this_machine("cpu").free, rel=0.2)
    fake("mps", 1)
    found = machine.this_machine("mps:0")
    assert (found.memory, found.on_gpu, found.host) == (
        machine.this_machine("cpu").memory,
        True,
        0,
    )


def test_random_states_are_those_of_both(fake: Any) -> None:
    done = fake("xpu", 1)
    states = devices.random_states("xpu:0")
    first = torch.rand(3)
    devices.set_random_states("xpu:0", states)
    assert torch.equal(torch.rand(3), first)
    assert done == [("xpu:0", [7])]
    assert len(devices.random_states("cpu")) == 1
    devices.give_back_unused()
    assert done[1:] == ["emptied"]
