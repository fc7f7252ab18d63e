"""PS+DFS, several objectives: from spec to export, resumed, warmed by other studies.

Covers spaces.joint, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import Interrupted, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.export import export
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search import objective
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import EvaluationSpec, StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.studies import MergeStudy, open_study, recipe_of
from tests.conftest import SpecMaker
from tests.engine import engine_of, merged_of

Make = Callable[..., StudySpec]
TWO = {
    "objectives": [{"minimize": "words.perplexity"}, {"minimize": "layers"}],
    "sampler": {"name": "nsga2", "seed": 1, "population": 6},
}


@pytest.fixture
def store(home: Path) -> Store:
    return open_store()


@pytest.fixture
def joint(spec_content: Callable[..., dict[str, Any]]) -> Make:
    def make(**parts: Any) -> StudySpec:
        stack = {"repeats": 2, "models": ["merged", "b"]}
        content = spec_content(study="joint", stage="ps+dfs", stack=stack, trials=20, **TWO)
        return parse_spec(content | parts)

    return make


@pytest.fixture
def staged(spec_content: Callable[..., dict[str, Any]]) -> Make:
    def make(**parts: Any) -> StudySpec:
        content = spec_content(study="staged", stage="ps+dfs", from_study="tiny", trials=6)
        kept = {k: v for k, v in content.items() if k not in ("merge", "base_model")}
        return parse_spec(kept | {"models": {"b": content["models"]["b"]}} | parts)

    return make


def run_to(study: MergeStudy, trials: int) -> MergeStudy:
    run_trials(study, trials)
    return open_study(study.store, study.name)


def outcome(study: MergeStudy) -> list[tuple[dict[str, float], list[float] | None]]:
    return [(t.params, t.values) for t in study.trials()]


def test_joint_search_begins_with_its_baselines(store: Store, joint: Make, tiny: Path) -> None:
    study = run_to(create_study(store, joint()), 4)
    named = [t.user_attrs.get(BASELINE) for t in study.trials()]
    assert named == ["uniform merge", "source a", "source b", None]
    assert [t.values[1] for t in study.trials()[:3]] == [4, 4, 4]  # identity paths
    _, a, *_ = study.trials()
    recipe = recipe_of(a)
    assert isinstance(recipe, StackRecipe)
    merged = merged_of(Builder(EvaluationSpec()).build(recipe)).model
    source, _ = load_model(tiny / "a", "cpu")
    difference = max(
        (x - y).abs().max().item()
        for x, y in zip(merged.state_dict().values(), source.state_dict().values(), strict=True)
    )
    assert difference < 1e-6


def test_nsga_interrupted_in_a_generation_goes_on_as_if_never_stopped(
    store: Store, joint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_to(create_study(store, joint(study="whole")), 20)
    study = create_study(store, joint())
    run_trials(study, 9)  # in the second generation of six
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(objective, "build_and_score", stop)
        with pytest.raises(Interrupted, match="stopped"):
            run_trials(open_study(store, "joint"), 20)
    study = run_to(open_study(store, "joint"), 20)
    assert outcome(study) == outcome(whole)
    assert len(study.study.get_trials()) == 21  # the interrupted one and its repeat
    generations = {
        name: [v for t in s.trials() for k, v in t.system_attrs.items() if "generation" in k]
        for name, s in (("whole", whole), ("joint", study))
    }
    assert generations["joint"] == generations["whole"]
    assert max(generations["whole"]) == 3  # and all baselines are in the first
    assert generations["whole"][:6] == [0] * 6


def test_the_front_is_what_nothing_beats(store: Store, joint: Make) -> None:
    study = run_to(create_study(store, joint(constraints=["layers >= 2", "layers <= 6"])), 20)
    front = study.front()
    assert front and all(2 <= t.values[1] <= 6 for t in front)
    kept = [t for t in study.trials() if 2 <= t.values[1] <= 6]
    for trial in kept:
        beaten = any(
            other.values != trial.values
            and all(x <= y for x, y in zip(other.values, trial.values, strict=True))
            for other in kept
        )
        assert beaten != (trial.values in [t.values for t in front])
    assert len({tuple(t.values) for t in front}) == len(front)
    assert study.best() == front[0]
    assert front[0].values[0] == min(t.values[0] for t in kept)


@pytest.mark.parametrize("stage", ["joint", "staged"])
def test_export_is_what_was_scored(
    store: Store, joint: Make, staged: Make, make_spec: SpecMaker, tmp_path: Path, stage: str
) -> None:
    run_trials(create_study(store, make_spec(trials=3)), 3)
    spec = joint(trials=8) if stage == "joint" else staged()
    study = run_to(create_study(store, spec), spec.trials)
    assert all(t.state is TrialState.COMPLETE for t in study.trials())
    trial = max(study.trials(), key=lambda t: len(recipe_of(t).model_dump()["steps"]))
    out = tmp_path / "out"
    assert export(study, trial, out) == result_of(trial).sha256
    model, tokenizer = load_model(out, "cpu")
    found = Evaluator(study.spec).evaluate(engine_of(model, tokenizer), "search")
    score = found.scores["words.perplexity"]
    # Folded scales move by what the norms' epsilon is beside these tiny random activations.
    assert score.value == pytest.approx(trial.values[0], rel=1e-2)
    assert FinalScorer(study).final_scores(trial)[-1].name == f"trial {trial.number}"


def test_staged_search_stacks_the_best_merge(
    store: Store, staged: Make, make_spec: SpecMaker
) -> None:
    with pytest.raises(UsageError, match="there is no study 'tiny'"):
        create_study(store, staged())
    merge = create_study(store, make_spec(trials=3))
    with pytest.raises(UsageError, match="from_study: study 'tiny' has no scored trial"):
        create_study(store, staged())
    run_trials(merge, 3)
    study = run_to(create_study(store, staged()), 1)
    best = merge.best()
    assert best is not None
    assert isinstance(recipe_of(best), MergeRecipe)
    assert recipe_of(study.trials()[0]).merges == {"merged": recipe_of(best)}
    assert study.trials()[0].values == best.values  # the identity path over it
    with pytest.raises(UsageError, match="'staged' searches no merge"):
        create_study(store, staged(study="twice", from_study="staged"))


def test_warm_start_by_a_merge_and_by_a_stack(
    store: Store, joint: Make, spec_content: Callable[..., dict[str, Any]], make_spec: SpecMaker
) -> None:
    merge = create_study(store, make_spec(trials=5))
    run_trials(merge, 5)
    content = spec_content(study="stack", stage="dfs", stack={"repeats": 2}, trials=5)
    for key in ("merge", "base_model"):
        del content[key]
    stack = create_study(store, parse_spec(content))
    run_trials(stack, 5)
    warmed = create_study(store, joint(warm_start=["tiny", "stack"], trials=5))
    run_trials(warmed, 5)
    by_name = {t.user_attrs[BASELINE]: t for t in warmed.trials()}
    best_merge, best_stack = merge.best(), stack.best()
    assert best_merge is not None and best_stack is not None
    assert by_name["best of tiny"].values[0] == best_merge.values[0]
    assert by_name["best of stack"].values[0] == pytest.approx(best_stack.values[0], rel=1e-5)
    with pytest.raises(UsageError, match="the best recipe of study 'stack' is none of this"):
        create_study(store, make_spec(study="other", warm_start=["stack"]))
    with pytest.raises(UsageError, match="there is no study 'none'"):
        create_study(store, make_spec(study="other", warm_start=["none"]))


@pytest.mark.parametrize("change", ["groups", "method", "models"])
def test_no_warm_start_by_a_merge_of_another_space(
    store: Store, make_spec: SpecMaker, tiny: Path, change: str
) -> None:
    run_trials(create_study(store, make_spec()), 1)
    merge = {"method": "ties", "layer_group_size": 2, "weight": [0, 2]}
    other: dict[str, Any] = {
        "groups": {"merge": merge | {"layer_group_size": 4}},
        "method": {"merge": merge | {"method": "dare_ties"}},
        "models": {"models": {"a": str(tiny / "b"), "b": str(tiny / "a")}},
    }[change]
    with pytest.raises(UsageError, match="the best recipe of study 'tiny' is none of this"):
        create_study(store, make_spec(study="other", warm_start=["tiny"], **other))
    same = create_study(store, make_spec(study="same", warm_start=["tiny"]))
    run_trials(same, 2)
    assert same.trials()[1].values == open_study(store, "tiny").trials()[0].values
