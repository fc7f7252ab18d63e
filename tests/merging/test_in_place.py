"""The digest is taken while the model is asked, and before the next merge takes its memory."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evomerge_optuna.devices import Lane
from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.recipes.merge import MergeRecipe


class SlowBus:
    """A device whose tensors reach the machine when a test opens the way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.way = threading.Event()
        monkeypatch.setattr(
            "evomerge_optuna.merging.merge_stream.has_memory_of_its_own", lambda _: True
        )
        monkeypatch.setattr("evomerge_optuna.devices.Lane.__init__", lambda *_: None)
        monkeypatch.setattr(Lane, "fetch", lambda _, tensor: self._fetch(tensor))

    def _fetch(self, tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
        def copy() -> torch.Tensor:
            assert self.way.wait(60)
            return tensor

        return copy


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> SlowBus:
    return SlowBus(monkeypatch)


def a_recipe(tiny: Path, weight: float) -> MergeRecipe:
    models = [{"model": str(tiny / name), "parameters": {"weight": weight}} for name in "ab"]
    configuration = {
        "merge_method": "task_arithmetic",
        "base_model": str(tiny / "base"),
        "models": models,
        "dtype": "float16",
    }
    return MergeRecipe(configuration=configuration, seed=0)


def test_the_model_is_there_before_its_digest(
    tiny: Path, bus: SlowBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ModelInPlace(ResidentMerger("cpu"))
    bus.way.set()
    assert models.merge(a_recipe(tiny, 0.5)).digest  # makes the model
    bus.way.clear()
    first = models.merge(a_recipe(tiny, 0.3))
    before = {name: tensor.clone() for name, tensor in first.model.named_parameters()}
    first.model(torch.arange(4)[None])  # is asked meanwhile
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(models.merge(a_recipe(tiny, 0.9)).digest))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()  # waits with the next merge
    assert all(torch.equal(before[name], p) for name, p in first.model.named_parameters())
    bus.way.set()
    thread.join(60)
    monkeypatch.undo()
    alone = ModelInPlace(ResidentMerger("cpu"))
    expected = [alone.merge(a_recipe(tiny, weight)).digest for weight in (0.3, 0.9)]
    assert [first.digest, *found] == expected


def test_a_merge_that_fails_leaves_the_next_one_sound(tiny: Path, bus: SlowBus) -> None:
    bus.way.set()
    models = ModelInPlace(ResidentMerger("cpu"))
    sound = models.merge(a_recipe(tiny, 0.3)).digest
    with pytest.raises(NotFiniteError):
        models.merge(a_recipe(tiny, 1e9))
    assert models.merge(a_recipe(tiny, 0.3)).digest == sound
