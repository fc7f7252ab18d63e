"""Studies side by side.

Covers report.comparison and results.progress, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial
from scipy.stats import binomtest

from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.report.comparison import write_report
from evomerge_optuna.report.tables import comparison_json
from evomerge_optuna.results.chosen_trial import find_trial, is_chosen_on_dev, knee, race
from evomerge_optuna.results.compare import ScoredModel, compare, hypervolumes, pair
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.results.progress import progress_of
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import GenerateTask, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import FINAL_SCORES
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import SpecMaker


@pytest.fixture
def store(home: Path) -> Store:
    return open_store()


def contender(
    name: str, marks: str, problems: str = "p", task: GenerateTask | None = None
) -> ScoredModel:
    return ScoredModel(name, {"t.accuracy": Score(0.5, 0.4, 0.6, 10)}, marks, problems, task)


def several(store: Store, content: dict[str, Any], **parts: Any) -> MergeStudy:
    two = {
        "stage": "dfs",
        "stack": {"repeats": 2},
        "sampler": {"name": "nsga2", "population": 6},
        "objectives": [{"minimize": "words.perplexity"}, {"minimize": "layers"}],
    }
    kept = {k: v for k, v in content.items() if k not in ("merge", "base_model")}
    study = create_study(store, parse_spec(kept | two | parts))
    run_trials(study, 30)
    return study


def test_the_exact_test_of_two_models_on_the_same_problems() -> None:
    found = pair(contender("a", "1" * 12 + "0000"), contender("b", "1" * 10 + "00" + "0001"))
    assert found is not None
    assert (found.only_first, found.only_second) == (2, 1)
    assert found.p == binomtest(2, 3).pvalue == 1.0
    clear = pair(contender("a", "1" * 10), contender("b", "0" * 10))
    assert clear is not None
    assert clear.p == pytest.approx(2 / 2**10)
    alike = pair(contender("a", "10"), contender("b", "10"))
    assert alike is not None
    assert alike.p == 1.0


def test_no_test_of_different_problems() -> None:
    assert pair(contender("a", "11"), contender("b", "11", problems="other")) is None
    assert pair(contender("a", ""), contender("b", "")) is None


def test_no_test_of_the_same_problems_scored_otherwise() -> None:
    data = {"search": {"path": "x.jsonl"}}
    strict, lax = (
        GenerateTask.model_validate({"type": "generate", "data": data, "language": language})
        for language in ("ja", None)
    )
    assert pair(contender("a", "11", task=strict), contender("b", "11", task=strict)) is not None
    assert pair(contender("a", "11", task=strict), contender("b", "11", task=lax)) is None


def test_progress_is_the_best_so_far(store: Store, make_spec: SpecMaker) -> None:
    study = create_study(store, make_spec())
    run_trials(study, 6)
    progress = progress_of(study)
    values = [trial.values[0] for trial in study.trials()]
    assert progress.best == tuple(min(values[: n + 1]) for n in range(6))
    assert progress.trials == (1, 2, 3, 4, 5, 6)
    durations = [t.duration.total_seconds() for t in study.trials() if t.duration]
    assert progress.seconds[-1] == pytest.approx(sum(durations), rel=1e-3)
    assert list(progress.seconds) == sorted(progress.seconds)


def test_a_report_of_two_studies(store: Store, make_spec: SpecMaker, tmp_path: Path) -> None:
    studies = [create_study(store, make_spec(study=name)) for name in ("one", "two")]
    for number, study in enumerate(studies):
        run_trials(study, 3 + number)
        scorer = FinalScorer(study)
        scorer.score_finalists()
        scorer.final_scores(find_trial(study, "best"))
    comparison = compare(studies)
    names = [row.name for row in comparison.tested]
    assert names[:3] == ["a", "b", "uniform merge"]
    assert [name.split()[0] for name in names[-2:]] == ["one", "two"]
    assert len(names) == 7  # the sources once, and what is made of them without a search
    stored = studies[1].study.user_attrs  # as another version may have computed the intervals
    for name in [name for name in stored if name.startswith(FINAL_SCORES)]:
        moved = {
            split: {
                metric: row | {"low": row["low"] * (1 - 1e-15)} for metric, row in scores.items()
            }
            for split, scores in stored[name].items()
        }
        assert moved != stored[name]
        studies[1].study.set_user_attr(name, moved)
    assert [row.name for row in compare(studies).tested] == names
    file = tmp_path / "report.html"
    write_report(comparison, file)
    page = file.read_text()
    assert "Comparison of one, two" in page
    assert page.count("Plotly.newPlot(") == 3
    assert 'src="http' not in page  # nothing is fetched
    assert comparison_json(comparison)["progress"]["two"]["trials"] == (1, 2, 3, 4)
    other = create_study(
        store, make_spec(study="other", objectives=[{"maximize": "words.perplexity"}])
    )
    assert "no common first objective" in refusal([*studies, other])


def test_studies_that_search_the_method_are_compared(
    store: Store, spec_content: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    merges: dict[str, Any] = {
        "any": {"method": ["ties", "della", "linear"], "include": "search"},
        "one": {"method": "ties", "density": [0.2, 0.5, 1], "normalize": [True, False]},
    }
    studies = []
    for name, merge in merges.items():
        content = spec_content(study=name, merge=merge, sampler="random", trials=6)
        study = create_study(store, parse_spec(content))
        run_trials(study, 6)
        scorer = FinalScorer(study)
        scorer.score_finalists()
        scorer.final_scores(find_trial(study, "best"))
        studies.append(study)
    comparison = compare(studies)
    names = [row.name for row in comparison.tested]
    assert names[:5] == ["a", "b", "uniform merge", "model_stock merge", "karcher merge"]
    assert [name.split()[0] for name in names[5:]] == ["any", "one"]
    write_report(comparison, tmp_path / "report.html")
    assert "model_stock merge" in (tmp_path / "report.html").read_text()


def test_models_that_are_called_alike(
    store: Store, spec_content: Callable[..., dict[str, Any]], tiny: Path
) -> None:
    models = {"one": {"a": "a", "b": "b"}, "two": {"a": "c", "b": "b"}}
    studies = []
    for name, sources in models.items():
        given = {alias: str(tiny / folder) for alias, folder in sources.items()}
        study = create_study(store, parse_spec(spec_content(study=name, models=given)))
        run_trials(study, 1)
        FinalScorer(study).final_scores(find_trial(study, "best"))
        studies.append(study)
    comparison = compare(studies)
    names = [row.name for row in comparison.tested]
    merges = ["uniform merge", "model_stock merge", "karcher merge"]
    one, two = ([f"{study} ({merge})" for merge in merges] for study in ("one", "two"))
    assert names[:9] == ["one (a)", "b", *one, "two (a)", *two]
    assert len(comparison_json(comparison)["test"]) == len(names) == 11


def refusal(studies: list[MergeStudy]) -> str:
    with pytest.raises(UsageError) as error:
        compare(studies)
    return str(error.value)


def test_front_knee_and_choice(store: Store, spec_content: Callable[..., dict[str, Any]]) -> None:
    objectives = [{"minimize": "words.perplexity"}, {"maximize": "layers"}]
    study = several(store, spec_content(), objectives=objectives)
    front = study.front()
    assert len(front) > 2
    best = [min(t.values[0] for t in front), max(t.values[1] for t in front)]
    worst = [max(t.values[0] for t in front), min(t.values[1] for t in front)]

    def loss(trial: FrozenTrial) -> float:
        """From the corner where both are best, each objective scaled to 0..1."""
        ends = zip(trial.values, best, worst, strict=True)
        return sum((value - good) / (bad - good) for value, good, bad in ends)

    assert loss(knee(study, front)) == pytest.approx(min(map(loss, front)))
    assert find_trial(study, "knee") == knee(study, front)
    with pytest.raises(UsageError, match="dev has not decided; run study test tiny"):
        find_trial(study, "best")
    FinalScorer(study).score_finalists()
    assert find_trial(study, "best") == front[race(study, front).winner or 0]
    assert is_chosen_on_dev(study)


def test_hypervolumes_have_one_reference_point(
    store: Store, spec_content: Callable[..., dict[str, Any]]
) -> None:
    one = several(store, spec_content(study="one"))
    two = several(
        store, spec_content(study="two"), sampler={"name": "nsga3", "population": 6, "seed": 5}
    )
    found = hypervolumes([one, two])
    points = [t.values for study in (one, two) for t in study.front()]
    x, y = (max(column) for column in zip(*points, strict=True))
    for study in (one, two):
        area, height = 0.0, y
        for value, layers in sorted(t.values for t in study.front()):
            if layers < height:
                area += (x - value) * (height - layers)
                height = layers
        assert found[study.name] == pytest.approx(area)
