"""A data-flow study from its spec to its export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from evomerge_optuna.errors import SpecError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.dashboard import attach_path, describe_study, describe_trial
from evomerge_optuna.report.export import STACK_FILE, export
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, open_study, recipe_of
from tests.conftest import LAYERS, save_tiny_model
from tests.engine import engine_of


@pytest.fixture
def dfs_spec(spec_content: Callable[..., dict[str, Any]]) -> Callable[..., StudySpec]:
    def make(**parts: Any) -> StudySpec:
        content = spec_content(study="stack", stage="dfs", stack={"repeats": 2}, trials=6)
        return parse_spec(
            {k: v for k, v in content.items() if k not in ("merge", "base_model")} | parts
        )

    return make


@pytest.fixture
def dfs_study(dfs_spec: Callable[..., StudySpec], home: Path) -> MergeStudy:
    return create_study(open_store(), dfs_spec())


def test_the_first_trial_is_the_first_model_itself(dfs_study: MergeStudy, tiny: Path) -> None:
    run_trials(dfs_study, 1)
    (trial,) = dfs_study.trials()
    model, tokenizer = load_model(tiny / "a", "cpu")
    scores = Evaluator(dfs_study.spec).evaluate(engine_of(model, tokenizer), "search").scores
    assert trial.values == [scores["words.perplexity"].value]


def test_indicators_are_choices_for_samplers_that_search_them_best(
    dfs_spec: Callable[..., StudySpec], home: Path
) -> None:
    studies = [
        create_study(open_store(), dfs_spec(study=name, sampler={"name": "tpe"}))
        for name in ("whole", "resumed")
    ]
    for trials, study in zip((9, 5), studies, strict=True):
        study.study.enqueue_trial(study.space.starts()["a 1 twice"])
        run_trials(study, trials)
    run_trials(open_study(open_store(), "resumed"), 9)
    whole, resumed = (study.trials() for study in studies)
    assert [t.params for t in whole] == [t.params for t in resumed]
    assert [t.values for t in whole] == [t.values for t in resumed]
    assert all(isinstance(whole[-1].params[n], bool) for n in whole[-1].params if "layer" in n)
    recipes = [recipe_of(trial) for trial in whole]
    assert len({recipe.digest() for recipe in recipes}) > 3
    given = recipes[1]  # after the baseline
    assert isinstance(given, StackRecipe)
    assert [step.layer for step in given.steps] == [0, 1, 1, *range(2, LAYERS)]


def test_a_stack_is_searched_resumed_scored_and_exported(
    dfs_study: MergeStudy, tiny: Path, tmp_path: Path
) -> None:
    run_trials(dfs_study, 3)
    run_trials(open_study(dfs_study.store, "stack"), 6)
    again = create_study(dfs_study.store, dfs_study.spec.model_copy(update={"study": "again"}))
    run_trials(again, 6)
    trials = dfs_study.trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 6
    assert [t.params for t in trials] == [t.params for t in again.trials()]
    assert [t.values for t in trials] == [t.values for t in again.trials()]
    assert len({result_of(t).sha256 for t in trials}) > 1

    chosen = trials[-1]
    rows = {row.name: row.scores["test"] for row in FinalScorer(dfs_study).final_scores(chosen)}
    assert list(rows) == ["a", "b", "identity path", "trial 5"]
    assert rows["identity path"] == rows["a"]

    digest = export(dfs_study, chosen, tmp_path / "out")
    assert digest == result_of(chosen).sha256
    recipe = recipe_of(chosen)
    assert isinstance(recipe, StackRecipe)
    model, tokenizer = load_model(tmp_path / "out", "cpu")
    assert model.config.num_hidden_layers == len(recipe.steps)
    assert (tmp_path / "out" / STACK_FILE).read_text() == recipe.to_yaml()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "layer:" in card and str(tiny) not in card
    scores = Evaluator(dfs_study.spec).evaluate(engine_of(model, tokenizer), "test").scores
    exported = scores["words.perplexity"].value
    assert exported == pytest.approx(rows["trial 5"]["words.perplexity"].value, rel=1e-3)


def test_the_path_is_shown(dfs_study: MergeStudy) -> None:
    run_trials(dfs_study, 3)
    for trial in dfs_study.trials():
        describe_trial(dfs_study, trial, dfs_study.read())
    describe_study(dfs_study)
    assert attach_path(dfs_study, find_trial(dfs_study, "1")) == "path-trial-1.html"
    (meta,) = optuna.artifacts.get_all_artifact_meta(dfs_study.study)
    assert (meta.filename, meta.mimetype) == ("path-trial-1.html", "text/html")
    attributes = dfs_study.store.rdb.get_study_system_attrs(dfs_study.study._study_id)
    assert any(name.startswith("dashboard:plot_data:") for name in attributes), attributes.keys()


def test_models_that_cannot_be_stacked(
    dfs_spec: Callable[..., StudySpec], home: Path, tiny: Path, tmp_path: Path
) -> None:
    def refusal(model: Path, **parts: Any) -> str:
        with pytest.raises(SpecError) as error:
            create_study(
                open_store(), dfs_spec(models={"a": str(tiny / "a"), "x": str(model)}, **parts)
            )
        return str(error.value)

    wide = save_tiny_model(tmp_path / "wide", 9, hidden_size=32)
    assert "models.x: hidden size 32" in refusal(wide)
    other = save_tiny_model(tmp_path / "other", 9, rms_norm_eps=1e-3)
    assert "models.x: rms_norm_eps is 0.001 in its config.json" in refusal(other)
    more = save_tiny_model(tmp_path / "more", 9, vocab_size=40)
    assert "set stack.head to first" in refusal(more)
    create_study(
        open_store(),
        dfs_spec(
            study="more", models={"a": str(tiny / "a"), "x": str(more)}, stack={"head": "first"}
        ),
    )
    deep = save_tiny_model(tmp_path / "deep", 9, num_hidden_layers=LAYERS + 3)
    found = create_study(
        open_store(), dfs_spec(study="deep", models={"a": str(tiny / "a"), "x": str(deep)})
    )
    assert len([n for n in found.space.ranges() if n.startswith("layer.")]) == 2 * (2 * LAYERS + 3)
    assert "stack.anchors: models.a has 4 layers, too few" in refusal(
        tiny / "b", stack={"anchors": 3}
    )


def test_a_figure_is_of_a_stack(make_spec: Callable[..., StudySpec], home: Path) -> None:
    merge_study = create_study(open_store(), make_spec())
    run_trials(merge_study, 1)
    with pytest.raises(UsageError, match="is no layer stack"):
        attach_path(merge_study, find_trial(merge_study, "best"))
