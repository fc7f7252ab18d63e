"""Whole studies in vLLM: they are killed, run out of memory, and find what transformers finds."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.engines.live import LiveModel
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import StudySpec, load_spec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import open_study
from tests.vllm.conftest import ENGINE
from tests.vllm.test_vllm import TRANSFORMERS, VLLM, recipes, replies, run

pytestmark = pytest.mark.vllm

QUICKSTART = Path(__file__).parents[2] / "studies" / "quickstart.yaml"


def test_the_quickstart_trial_for_trial(home: Path) -> None:
    quickstart = load_spec(QUICKSTART).model_dump(mode="json", by_alias=True)
    found = []
    for engine in ({"engine": "transformers"}, ENGINE):
        evaluation = {**quickstart["evaluation"], **engine, "device": "cpu"}
        content = {**quickstart, "study": engine["engine"], "trials": 6, "evaluation": evaluation}
        study = run(content)
        found.append(
            [
                (trial.params, (one := result_of(trial)).sha256, one.measures)
                for trial in study.trials()
            ]
        )
    assert found[0] == found[1]
    assert len({measures["math.accuracy"] for _, _, measures in found[0]}) > 1


def test_a_study_that_is_killed_goes_on_as_if_it_had_not_been(
    content: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/killed.db"
    spec = parse_spec({**content, "study": "killed"})
    (tmp_path / "killed.yaml").write_text(spec.to_yaml())
    command = [sys.executable, "-m", "evomerge_optuna", "study", "run", tmp_path / "killed.yaml"]
    process = subprocess.Popen([*command, "--storage", url])
    while process.poll() is None and finished(url) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= finished(url) < 8
    study = open_study(open_store(url), "killed")
    run_trials(study, 8)
    whole = run({**content, "study": "whole"})
    seen = [
        [
            (trial.params, result_of(trial).sha256, result_of(trial).measures)
            for trial in one.trials()
            if trial.state is TrialState.COMPLETE
        ]
        for one in (open_study(open_store(url), "killed"), whole)
    ]
    assert seen[0] == seen[1] and len(seen[0]) == 8


def finished(url: str) -> int:
    try:
        return open_study(open_store(url), "killed").finished()
    except Exception:  # it is not created yet
        return 0


def test_out_of_memory_in_vllm_fails_its_trial_alone(
    spec: StudySpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models.llama import LlamaForCausalLM

    forward, put_in, count = LlamaForCausalLM.forward, LiveModel.put_in, 0

    def counted(self: LiveModel, tensors: Any) -> None:
        nonlocal count
        count += 1
        put_in(self, tensors)

    def without_memory(*given: Any, **named: Any) -> Any:
        if count == 3:
            raise torch.OutOfMemoryError("no memory")
        return forward(*given, **named)

    monkeypatch.setattr(LiveModel, "put_in", counted)
    monkeypatch.setattr(LlamaForCausalLM, "forward", without_memory)
    study = create_study(open_store(), spec)
    run_trials(study, 5)
    states = [trial.state for trial in study.trials()]
    assert states.count(TrialState.FAIL) == 1 and states[2] is TrialState.FAIL
    assert [state for n, state in enumerate(states) if n != 2] == [TrialState.COMPLETE] * 4


def test_a_candidate_that_is_not_finite_fails_its_trial_alone(
    content: dict[str, Any], home: Path
) -> None:
    content["merge"] = {"method": "task_arithmetic", "layer_group_size": 2, "weight": [0, 1e39]}
    found = []
    for evaluation in (content["evaluation"], {"device": "cpu"}):
        name = evaluation.get("engine", "transformers")
        study = run({**content, "study": name, "evaluation": evaluation, "trials": 1})
        for weight in (1e39, 0.5):
            study.study.enqueue_trial(dict.fromkeys(study.space.ranges(), weight))
        run_trials(study, 3)
        first, infinite, last = study.trials()
        assert infinite.state is TrialState.FAIL
        assert "NaN or infinite" in infinite.user_attrs["error"]
        found.append([result_of(first), result_of(last)])
    for one, other in zip(*found, strict=True):
        assert one.sha256 == other.sha256
        assert one.measures == pytest.approx(other.measures, rel=1e-6)


def test_without_the_heads_own_name_a_tied_model_keeps_the_old_head(
    families: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests of tied models can fail."""
    first, second = recipes(families / "tied", 2)
    ours, theirs = candidate_builder(VLLM), candidate_builder(TRANSFORMERS)
    ours.build(first)

    def as_they_are(self: LiveModel, tensors: Any) -> list[NamedTensor]:
        return [(name, tensor) for name, tensor in tensors if name != "lm_head.weight"]

    with monkeypatch.context() as patch:
        patch.setattr(LiveModel, "_with_tied", as_they_are)
        found = replies(ours.build(second).engine)[1]
    expected = replies(theirs.build(second).engine)[1]
    assert found != pytest.approx(expected, abs=0.1)
    assert replies(ours.build(second).engine)[1] == pytest.approx(expected, abs=1e-4)
