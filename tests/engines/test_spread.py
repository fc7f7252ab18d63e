"""vLLM runs on the device of the spec, or over several of them."""

from functools import partial
from typing import Any

import pytest
import torch

from evomerge_optuna import machine
from evomerge_optuna.engines.spread import check_spread, device_ids
from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import EvaluationSpec
from tests.accelerators import fake_accelerators


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(fake_accelerators, monkeypatch)


def spec(device: str, **engine_args: Any) -> EvaluationSpec:
    return EvaluationSpec(device=device, engine="vllm", engine_args=engine_args)


def test_the_device_that_a_spec_names(fake: Any) -> None:
    assert device_ids(spec("cpu")) is None
    fake("cuda", 4)
    assert device_ids(spec("auto")) is None
    assert device_ids(spec("cuda:2")) == [2]
    assert device_ids(spec("cuda:2", tensor_parallel_size=2)) == [2, 3]


def test_each_worker_has_its_own(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("cuda", 2)
    monkeypatch.setattr(machine, "_processes", 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    found = []
    for number in range(3):
        machine.take_share(number, 3)
        found.append(device_ids(spec("auto")))
    assert found == [None, [1], None]


def test_more_devices_than_there_are(fake: Any) -> None:
    fake("cuda", 4)
    check_spread(spec("cuda:2", tensor_parallel_size=2))
    with pytest.raises(
        SpecError, match=r"tensor_parallel_size: 3: from cuda:2 on there are 2; write 2 or less$"
    ):
        check_spread(spec("cuda:2", tensor_parallel_size=3))
    check_spread(spec("cpu", tensor_parallel_size=8))  # whose number is the user's


def test_workers_do_not_share_devices(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("cuda", 4)
    monkeypatch.setattr(machine, "_processes", 2)
    check_spread(spec("cuda"))
    check_spread(spec("cpu", tensor_parallel_size=2))
    with pytest.raises(SpecError, match="tensor_parallel_size: 2: several workers would share"):
        check_spread(spec("cuda", tensor_parallel_size=2))
