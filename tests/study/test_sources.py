"""In the first population of NSGA-II a source model is the source model.

Covers study.first_trials, too.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from evomerge_optuna.report.export import export
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.requeue import requeue
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.studies import MergeStudy, recipe_of


@pytest.fixture
def with_another_rope(
    tiny: Path, tmp_path: Path, home: Path, spec_content: Callable[..., dict[str, Any]]
) -> tuple[MergeStudy, list[str]]:
    """A study in whose models b alone has another rope, and what its creation said."""
    b = Path(shutil.copytree(tiny / "b", tmp_path / "b"))
    config = json.loads((b / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 3.0
    (b / "config.json").write_text(json.dumps(config))
    spec = parse_spec(
        spec_content(
            base_model=None,
            models={"a": str(tiny / "a"), "b": str(b)},
            merge={"method": "linear", "weight": [0, 1]},
            sampler={"name": "nsga2", "population": 4, "seed": 1},
        )
    )
    said: list[str] = []
    return create_study(open_store(), spec, said.append), said


def test_such_a_source_without_a_chat_template_has_that_of_merges(
    tiny: Path, tmp_path: Path, home: Path, spec_content: Callable[..., dict[str, Any]]
) -> None:
    a, b = (Path(shutil.copytree(tiny / name, tmp_path / name)) for name in "ab")
    (a / "chat_template.jinja").write_text("word1 {{ messages[0]['content'] }}")
    config = json.loads((b / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 3.0
    (b / "config.json").write_text(json.dumps(config))
    asked = {"type": "generate", "prompt": "{text}", "answer": "text", "chat": True}
    data = {"search": {"path": str(tiny / "search.jsonl")}}
    spec = parse_spec(
        spec_content(
            base_model=None,
            models={"a": str(a), "b": str(b)},
            merge={"method": "linear", "weight": [0, 1]},
            sampler={"name": "nsga2", "population": 4, "seed": 1},
            tasks={"t": {**asked, "scorer": "exact", "max_new_tokens": 2, "data": data}},
            objectives=[{"maximize": "t.accuracy"}],
        )
    )
    study = create_study(open_store(), spec)
    run_trials(study, 3)
    (trial,) = (t for t in study.study.trials if t.user_attrs.get(BASELINE) == "source b")
    assert trial.state is optuna.trial.TrialState.COMPLETE


def test_a_source_with_another_configuration_is_scored_with_it(
    with_another_rope: tuple[MergeStudy, list[str]], tmp_path: Path
) -> None:
    study, said = with_another_rope
    assert "  rope_parameters.rope_theta: models.a 10000.0, models.b 3.0" in said
    run_trials(study, 3)
    trials = {t.user_attrs[BASELINE]: t for t in study.study.trials if BASELINE in t.user_attrs}
    for alias in "ab":
        alone = score_checkpoint(study.spec.models[alias], study.spec, "search")
        trial = trials[f"source {alias}"]
        assert trial.value == pytest.approx(alone.scores["words.perplexity"].value, rel=1e-6)
    assert recipe_of(trials["source b"]).models() == [study.spec.models["b"]]
    export(study, trials["source b"], tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_parameters"]["rope_theta"] == 3.0


def test_a_repeat_of_it_is_the_same(with_another_rope: tuple[MergeStudy, list[str]]) -> None:
    study, _ = with_another_rope
    (trial,) = (t for t in study.study.trials if t.user_attrs[BASELINE] == "source b")
    requeue(study, [trial])
    repeat = study.study.trials[-1]
    assert repeat.state is optuna.trial.TrialState.WAITING
    assert recipe_of(repeat) == recipe_of(trial)
