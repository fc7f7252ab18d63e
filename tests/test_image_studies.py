"""Studies of models that draw: raced, with two scorers as objectives, and shared by workers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge_optuna.engines.diffusers import Builder
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.run import Limits, run_study
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import STOPPED, WORKER
from evomerge_optuna.study.studies import MergeStudy, open_study, recipe_of
from tests.conftest import CommandLine
from tests.pipelines import save_pipeline, save_variant

PROMPTS = [f"a {colour} {shape}" for colour in ("red", "blue") for shape in ("circle", "square")]
CODE = """import os, pathlib, time

import numpy


def red(images, rows):
    return [numpy.asarray(image)[..., 0].mean() / 255 for image in images]


def blue(images, rows):
    return [numpy.asarray(image)[..., 2].mean() / 255 for image in images]


def together(images, rows):
    here = pathlib.Path(__file__).parent
    (here / f"{os.getpid()}.worker").touch()
    while len(list(here.glob("*.worker"))) < 2:
        time.sleep(0.05)
    return red(images, rows)
"""
Content = Callable[..., dict[str, Any]]
Run = Callable[..., MergeStudy]


@pytest.fixture
def content(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Content:
    """Specs of tiny pipelines on twelve prompts, which are scored by their colours."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tints.py").write_text(CODE)
    rows = [{"prompt": PROMPTS[number % 4], "seed": number} for number in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = save_pipeline(tmp_path / "base")
    models = {
        name: str(save_variant(base, tmp_path / name, seed)) for seed, name in enumerate("ab")
    }
    task = {
        "type": "image",
        "data": {"search": {"path": str(tmp_path / "rows.jsonl")}},
        "seed": "seed",
        "steps": 1,
        "guidance": 1,
        "scorers": {n: {"type": "python", "function": f"tints:{n}"} for n in ("red", "blue")},
    }

    def make(name: str, **keys: Any) -> dict[str, Any]:
        return {
            "study": name,
            "stage": "ps",
            "base_model": str(base),
            "models": models,
            "merge": {"method": "task_arithmetic", "weight": [0, 1]},
            "tasks": {"pictures": task},
            **keys,
        }

    return make


@pytest.fixture
def run(tmp_path: Path, content: Content) -> Run:
    def make(name: str, **keys: Any) -> MergeStudy:
        store, spec = open_store(f"sqlite:///{tmp_path / 'db'}"), parse_spec(content(name, **keys))
        return run_study(store, spec, Limits())

    return make


def test_two_scorers_are_two_objectives(run: Run) -> None:
    both = [{"maximize": "pictures.red"}, {"maximize": "pictures.blue"}]
    study = run("both", sampler={"name": "nsga2", "population": 4}, trials=8, objectives=both)
    assert study.finished() == 8
    for trial in study.trials():
        scores = result_of(trial).scores
        assert trial.values == [scores["pictures.red"].value, scores["pictures.blue"].value]
        assert scores["pictures.red"].n == 12
    front = [trial.values for trial in study.front()]
    assert front and not any(a[0] > b[0] and a[1] > b[1] for a in front for b in front)


def test_merges_with_nothing_to_search_draw_too(run: Run) -> None:
    """Of several sources, and of a single one, whose kinds of tensors no language model has."""
    red = [{"maximize": "pictures.red"}]
    several = run("several", trials=1, objectives=red)
    names = [row.name for row in FinalScorer(several).final_scores(several.trials()[0])]
    merges = ["uniform merge", "model_stock merge", "karcher merge"]
    assert names == ["base_model", "a", "b", *merges, "trial 0"]
    models = {"a": several.spec.models["a"]}
    one = run("one", trials=1, objectives=red, models=models)
    names = [row.name for row in FinalScorer(one).final_scores(one.trials()[0])]
    assert names == ["base_model", "a", "uniform merge", "arcee_fusion merge", "trial 0"]


def test_raced_pictures_are_scored_block_by_block(run: Run) -> None:
    red = [{"maximize": "pictures.red"}]
    raced = run("raced", trials=12, objectives=red, racing={"blocks": 12, "p_threshold": 0.2})
    whole = run("whole", trials=1, objectives=red)
    for trial in raced.trials():
        blocks = trial.intermediate_values
        drawn = trial.user_attrs.get(STOPPED, 12)
        assert len(blocks) == drawn == result_of(trial).scores["pictures.red"].n
        assert trial.value == pytest.approx(sum(blocks.values()) / len(blocks))
    first, alone = raced.trials()[0], whole.trials()[0]
    assert first.params == alone.params and first.value == pytest.approx(alone.value)
    best, stopped = raced.best(), raced.read().stopped
    assert best is not None and 0 < len(stopped) < 11
    for trial in stopped:
        assert trial.user_attrs[STOPPED] < 12 and trial.values[0] < best.values[0]


def test_two_workers_share_a_study_on_postgres(
    content: Content, tmp_path: Path, database: Callable[[str], str], command_line: CommandLine
) -> None:
    url, made = database("postgres"), content("shared", trials=6)
    made["objectives"] = [{"maximize": "pictures.red"}]
    # The first picture of either worker waits for the other worker.
    made["tasks"]["pictures"]["scorers"]["red"]["function"] = "tints:together"
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump(made))
    command_line.run("study", "run", "shared.yaml", "--workers", "2", "--storage", url)
    study = open_study(open_store(url), "shared")
    trials = study.trials()
    assert len(trials) == study.finished() == 6
    assert len({json.dumps(trial.user_attrs[WORKER]) for trial in trials}) == 2
    builder = Builder(study.spec.evaluation)
    for trial in trials:
        assert builder.build(recipe_of(trial)).take_digest() == result_of(trial).sha256
