"""A spec names the engine that runs its candidates, and what that engine is given.

Covers spec.engine_args, too.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.engines import ENGINES
from evomerge_optuna.errors import SpecError
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.spec.engine_args import NOT_TO_GIVE
from evomerge_optuna.spec.evaluation import EvaluationSpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study

Content = Callable[..., dict[str, Any]]


def test_a_study_of_transformers_is_stored_as_ever(spec_content: Content) -> None:
    stored = parse_spec(spec_content()).model_dump(mode="json", by_alias=True)
    assert list(stored["evaluation"]) == [
        *("batch_size", "dtype", "device", "merger", "memory_limit", "max_retries")
    ]
    named = parse_spec(spec_content(evaluation={"engine": "transformers"}))
    assert named.model_dump(mode="json", by_alias=True) == stored
    assert named.to_yaml() == parse_spec(spec_content()).to_yaml()


def test_another_engine_is_stored(spec_content: Content) -> None:
    evaluation = {"engine": "vllm", "engine_args": {"gpu_memory_utilization": 0.6}}
    spec = parse_spec(spec_content(evaluation=evaluation))
    stored = spec.model_dump(mode="json", by_alias=True)
    assert stored["evaluation"].items() >= evaluation.items()
    assert parse_spec(json.loads(json.dumps(stored))) == spec
    assert "engine: vllm" in spec.to_yaml()


def test_every_engine_that_a_spec_can_name_is_there() -> None:
    annotation = EvaluationSpec.model_fields["engine"].annotation
    assert set(annotation.__args__) == ENGINES.keys()


@pytest.mark.parametrize("name", NOT_TO_GIVE)
def test_an_argument_that_is_not_for_a_spec_to_give(spec_content: Content, name: str) -> None:
    evaluation = {"engine": "vllm", "engine_args": {name: 1}}
    with pytest.raises(SpecError, match=rf"evaluation\.engine_args: {name} is not for a spec"):
        parse_spec(spec_content(evaluation=evaluation))


def test_arguments_without_vllm(spec_content: Content) -> None:
    with pytest.raises(SpecError, match="only vllm takes them; write engine: vllm"):
        parse_spec(spec_content(evaluation={"engine_args": {"block_size": 16}}))


def test_without_vllm_it_is_named(
    spec_content: Content, tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an environment without it, which this one is, or is made to be."""
    monkeypatch.setitem(sys.modules, "vllm", None)
    spec = parse_spec(spec_content(evaluation={"engine": "vllm"}))
    message = r"^evaluation\.engine: needs vLLM .* pip install 'evomerge-optuna\[vllm\]'"
    with pytest.raises(SpecError, match=message):
        create_study(open_store(), spec)
    with pytest.raises(SpecError, match=message):
        score_checkpoint(str(tiny / "a"), spec, "search")
