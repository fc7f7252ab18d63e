"""A model spread over two processes, which candidates reach through files in memory."""

from pathlib import Path

import psutil
import pytest
import torch

from evomerge_optuna.engines import candidate_builder, installed_vllm, live
from evomerge_optuna.engines.base import EngineMemory
from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.models.shards import read_tensors
from evomerge_optuna.spec import EvaluationSpec
from tests.vllm.conftest import ENGINE
from tests.vllm.test_vllm import TRANSFORMERS, model_of, recipes, replies

pytestmark = pytest.mark.vllm

TWO = {**ENGINE["engine_args"], "tensor_parallel_size": 2}


def test_candidates_in_two_processes(families: Path, tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    spec = EvaluationSpec(device="cpu", engine="vllm", engine_args=TWO)
    ours, theirs = candidate_builder(spec), candidate_builder(TRANSFORMERS)
    for recipe in recipes(families / "tied", 3):
        one, other = ours.build(recipe), theirs.build(recipe)
        texts, numbers = replies(one.engine)
        expected, likelihoods = replies(other.engine)
        assert one.digest == other.digest
        assert texts == expected
        assert numbers == pytest.approx(likelihoods, abs=1e-4)
    assert not list(Path("/dev/shm").glob(f"evomerge-candidate-{psutil.Process().pid}-*"))
    workers = set(psutil.Process().children(recursive=True)) - before
    assert len(workers) >= 2
    tensors = dict(read_tensors(families / "tied" / "a"))
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], float("nan"))
    with pytest.raises(NotFiniteError):
        ours.build(model_of(tensors, families / "tied" / "a", tmp_path / "bad"))
    live.close()
    _, left = psutil.wait_procs(workers, timeout=60)
    assert not [one for one in left if "resource_tracker" not in " ".join(one.cmdline())]


def test_a_plan_is_told_over_how_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed_vllm, "default_arguments", dict)  # as on a GPU
    monkeypatch.setattr(installed_vllm, "memory_of", lambda _: (0, 1000))
    given = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    spec = EvaluationSpec(device="cpu", engine="vllm", engine_args=given)
    assert installed_vllm.memory_of_vllm(spec) == EngineMemory(engine=500, devices=2)
