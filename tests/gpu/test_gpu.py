"""On an accelerator as on the CPU: mergekit's merges, streamed or not, hashed while they are asked.

`benchmarks/gpu.py` does the same with larger models, and takes the time.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evomerge_optuna import api, devices
from evomerge_optuna.devices import Lane
from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.engines.base import Greedy
from evomerge_optuna.machine import this_machine
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.memory import Budget, Room
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.methods import METHODS
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec
from tests.conftest import WORDS, SpecMaker
from tests.engine import merged_of
from tests.merging.test_resident import PLACES

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "gpu.py"


def test_its_memory(device: str) -> None:
    found = this_machine(device)
    assert found.on_gpu and 0 < found.free <= found.memory
    assert bool(found.host) == devices.has_memory_of_its_own(device)


def test_there_and_back_beside_its_own_work(device: str) -> None:
    lane = Lane(device)
    here = [devices.pinned(torch.rand(1000, 1000), device) for _ in range(4)]
    there = lane.send(here).received()
    assert all(str(tensor.device) == device for tensor in there)
    doubled = [tensor * 2 for tensor in there]
    for tensor, other in zip(here, doubled, strict=True):
        assert torch.equal(lane.fetch(other)(), tensor * 2)


def a_recipe(tiny: Path, method: str, seed: int = 3) -> MergeRecipe:
    row = METHODS[method]
    least = max(row.sources[0], 1)
    values = {p.name: p.low + 0.6 * (p.high - p.low) for p in row.parameters}
    given = {p.name: p.for_mergekit(values) for p in row.parameters}
    own = {p.name: given[p.name] for p in row.parameters if p.scope == "source"}
    shared = {p.name: given[p.name] for p in row.parameters if p.scope == "shared"}
    names = "ab"[: row.sources[1] or 2] if row.sources[1] else "ab"[: max(2, least)]
    configuration = {
        "merge_method": method,
        "models": [{"model": str(tiny / name), "parameters": own} for name in names],
        "parameters": shared,
        "dtype": "float32",
    }
    if row.base == "required":
        configuration["base_model"] = str(tiny / "base")
    return MergeRecipe(configuration=configuration, seed=seed)


@pytest.mark.parametrize("method", METHODS)
def test_mergekits_merges_wherever_the_models_are(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, method: str
) -> None:
    """Its random numbers are the device's own, in the same order."""
    recipe = a_recipe(tiny, method)
    expected = write_recipe(recipe, tmp_path / "out", device)
    assert expected == digest_files(tmp_path / "out")
    for room in PLACES.values():
        monkeypatch.setattr(Room, "of", lambda *_, room=room: room())
        models = ModelInPlace(ResidentMerger(device))
        assert [models.merge(recipe).digest for _ in range(3)] == [expected] * 3


def test_a_digest_is_of_what_was_asked(tiny: Path, device: str) -> None:
    models = ModelInPlace(ResidentMerger(device))
    recipes = [a_recipe(tiny, "dare_ties", seed) for seed in range(4)]
    alone = [ModelInPlace(ResidentMerger(device)).merge(recipe).digest for recipe in recipes]
    kept = []
    for recipe in recipes:
        merged = models.merge(recipe)
        merged.model(torch.arange(8, device=device)[None])
        kept.append(merged.digest)
    assert kept == alone


def test_stacks_of_models_that_are_not_on_it(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    a, b = str(tiny / "a"), str(tiny / "b")
    steps = (Step(model=a, layer=1, scale=0.8), Step(model=b, layer=0), Step(model=a, layer=1))
    recipe = StackRecipe(embeddings=a, steps=steps, head=b)
    ids = torch.arange(8, device=device)[None]
    found = []
    for rest in (Budget(2**30), Budget(0)):
        for host in (Budget(2**30), Budget(0)):
            monkeypatch.setattr(Room, "of", lambda *_, r=rest, h=host: Room(r, h))
            built = merged_of(candidate_builder(EvaluationSpec(device=device)).build(recipe))
            assert {str(p.device) for p in built.model.parameters()} == {device}
            found.append((built.digest, built.model(ids).logits.cpu()))
    for digest, logits in found[1:]:
        assert digest == found[0][0]
        assert torch.equal(logits, found[0][1])


def test_memory_that_runs_out_is_survived(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    if not devices.has_memory_of_its_own(device):
        pytest.skip(f"{device} has the machine's own memory, which has no bound to set")
    monkeypatch.setattr("evomerge_optuna.engines.batching._limit", sys.maxsize)
    prompts = [" ".join(WORDS * 4)] * 4096
    spec = EvaluationSpec(device=device, batch_size=len(prompts))
    engine = candidate_builder(spec).build(a_recipe(tiny, "linear")).engine
    (alone,) = engine.generate(prompts[:1], Greedy(8))  # type: ignore[attr-defined]
    module = torch.get_device_module(device)
    _, total = devices.memory_of(device)
    module.set_per_process_memory_fraction(2**26 / total, device)
    try:
        assert engine.generate(prompts, Greedy(8)) == [alone] * 4096  # type: ignore[attr-defined]
    finally:
        module.set_per_process_memory_fraction(1.0, device)


def test_two_workers_on_one_card(
    make_spec: SpecMaker, tmp_path: Path, home: Path, device: str
) -> None:
    spec = make_spec(evaluation={"device": device}, trials=6)
    study = api.run_study(spec, f"sqlite:///{tmp_path}/study.db", workers=2)
    assert study.finished() == 6
    digest = api.export(spec.study, tmp_path / "out", f"sqlite:///{tmp_path}/study.db")
    assert digest == digest_files(tmp_path / "out")


def test_the_benchmark(tmp_path: Path, device: str) -> None:
    figures = tmp_path / "figures.json"
    options = ["--shape", "tiny", "--device", device, "--repeats", "1", "--json", figures]
    subprocess.run([sys.executable, BENCHMARK, *options], check=True)
    (shape,) = json.loads(figures.read_text())
    assert shape["rows"]
