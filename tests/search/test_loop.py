"""A bad candidate fails its trial and nothing else; what is not its fault stops the run.

Covers search.next_trial, search.objective and study.result, too.
"""

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.engines.base import Candidate, Engine
from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.results.final_scores import stored_final_scores
from evomerge_optuna.search import objective
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.requeue import requeue_running
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import SpecMaker


@pytest.fixture
def merge_study(make_spec: SpecMaker, home: Path) -> MergeStudy:
    return create_study(open_store(), make_spec())


def test_total_trials_not_extra_ones(merge_study: MergeStudy) -> None:
    seen: list[int] = []
    run_trials(merge_study, 3, on_trial=lambda trial, _: seen.append(trial.number))
    run_trials(merge_study, 5, on_trial=lambda trial, _: seen.append(trial.number))
    run_trials(merge_study, 5, on_trial=lambda trial, _: seen.append(trial.number))
    assert seen == [0, 1, 2, 3, 4]


def test_the_first_trial_is_the_uniform_merge(merge_study: MergeStudy) -> None:
    run_trials(merge_study, 1)
    (trial,) = merge_study.trials()
    assert trial.params == merge_study.space.baseline()
    assert trial.user_attrs["recipe"] == merge_study.space.recipe(trial.params).model_dump()


def test_a_trial_that_another_has_failed_is_let_go(merge_study: MergeStudy) -> None:
    folder = Path(str(merge_study.store.artifacts))
    folder.rmdir()
    folder.touch()  # so that the last that is said of a trial is that its answers are lost
    numbers: list[int] = []

    def fail(line: str) -> None:
        if "keeps its score" in line and not numbers:
            numbers.append(0)
            merge_study.study.tell(0, state=TrialState.FAIL)  # as the dashboard does

    run_trials(merge_study, 2, say=fail)
    states = [trial.state for trial in merge_study.trials()]
    assert numbers == [0] and states == [TrialState.FAIL, TrialState.COMPLETE]


def test_timeout(merge_study: MergeStudy) -> None:
    run_trials(merge_study, 5, timeout=0)
    assert merge_study.finished() == 0


def test_overflowing_candidates_fail_and_the_study_goes_on(
    make_spec: SpecMaker, home: Path
) -> None:
    spec = make_spec(merge={"method": "task_arithmetic", "layer_group_size": 2,
                            "weight": [0, 1e39]})  # fmt: skip
    merge_study = create_study(open_store(), spec)
    run_trials(merge_study, 4)
    states = [trial.state for trial in merge_study.trials()]
    assert states[0] is TrialState.COMPLETE  # the uniform merge
    assert states[1:] == [TrialState.FAIL] * 3
    assert "NaN or infinite" in merge_study.trials()[1].user_attrs["error"]


def test_a_new_best_that_cannot_be_scored_on_dev_keeps_its_score(
    merge_study: MergeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = Evaluator.evaluate

    def fails_on_dev(self: Evaluator, engine: Engine, split: str, **named: Any) -> Any:
        if split == "dev":
            raise CandidateError("no text has anything to predict")
        return evaluate(self, engine, split, **named)

    monkeypatch.setattr(Evaluator, "evaluate", fails_on_dev)
    said: list[str] = []
    run_trials(merge_study, 1, say=said.append)
    (trial,) = merge_study.trials()
    assert trial.state is TrialState.COMPLETE
    assert result_of(trial).dev is None
    assert "a new best candidate cannot be scored on dev: no text has anything to predict" in said


def test_a_trial_that_ends_while_its_worker_is_taken_for_dead(merge_study: MergeStudy) -> None:
    """Its lease was lost for a moment; the score counts, and is not looked for again."""
    trial = merge_study.study.ask()
    merge_study.space.suggest(trial)

    def is_cut_short(_: FrozenTrial) -> bool:
        merge_study.study.tell(trial, 1.0)  # after it was looked at
        return True

    requeue_running(merge_study, is_cut_short, "its worker died")
    assert merge_study.study.trials[trial.number].state is TrialState.COMPLETE


def break_merging(broken: pytest.MonkeyPatch, error: Exception) -> None:
    """Makes every merge fail."""

    class Broken:
        def build(self, recipe: MergeRecipe) -> Candidate:
            raise error

    broken.setattr(objective, "candidate_builder", lambda *_: Broken())


@pytest.mark.parametrize("error", [MemoryError("17 GB"), RuntimeError("CUDA out of memory")])
def test_an_exception_fails_the_trial(
    merge_study: MergeStudy, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with monkeypatch.context() as broken:
        break_merging(broken, error)
        run_trials(merge_study, 2)
    run_trials(merge_study, 4)
    states = [trial.state for trial in merge_study.trials()]
    assert states == [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 2
    assert str(error) in merge_study.trials()[0].user_attrs["error"]


def test_a_fault_of_all_candidates_stops_the_run_and_they_are_repeated(
    merge_study: MergeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trials(merge_study, 1)
    with monkeypatch.context() as broken:
        error = RuntimeError("no CUDA-capable device is detected")
        break_merging(broken, error)
        with pytest.raises(EvomergeError, match=r"5 candidates all failed alike: .*CUDA"):
            run_trials(merge_study, 9)
    assert merge_study.finished() == 1
    run_trials(merge_study, 9)
    assert [t.state for t in merge_study.trials()] == [TrialState.COMPLETE] * 9

    whole = create_study(merge_study.store, make_other(merge_study))
    run_trials(whole, 9)
    assert [t.params for t in whole.trials()] == [t.params for t in merge_study.trials()]


def make_other(merge_study: MergeStudy) -> StudySpec:
    return merge_study.spec.model_copy(update={"study": "never stopped"})


def test_a_full_disk_stops_the_run_and_loses_nothing(
    merge_study: MergeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trials(merge_study, 2)
    with monkeypatch.context() as broken:
        full = OSError(errno.ENOSPC, "No space left on device", "/data/scratch")
        break_merging(broken, full)
        with pytest.raises(EvomergeError, match="/data/scratch: no space left"):
            run_trials(merge_study, 4)
    assert merge_study.finished() == 2
    run_trials(merge_study, 4)
    assert [t.state for t in merge_study.trials()] == [TrialState.COMPLETE] * 4


def test_answers_of_the_best_trials_are_kept(merge_study: MergeStudy) -> None:
    run_trials(merge_study, 6)
    best_so_far, improvements = float("inf"), 0
    for trial in merge_study.trials():
        if trial.values[0] < best_so_far:
            best_so_far, improvements = trial.values[0], improvements + 1
    files = list(Path(str(merge_study.store.artifacts)).iterdir())
    assert len(files) == 2 * improvements  # on search and on dev
    assert all(len([json.loads(x) for x in f.read_text().splitlines()]) == 20 for f in files)


def test_final_scores_are_computed_once(
    merge_study: MergeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trials(merge_study, 4)
    best = find_trial(merge_study, "best")
    rows = FinalScorer(merge_study).final_scores(best)
    others = ["uniform merge", "model_stock merge", "karcher merge"]
    assert [row.name for row in rows] == ["a", "b", *others, f"trial {best.number}"]
    assert list(rows[0].scores) == ["search", "dev", "test"]
    target = merge_study.spec.objective.target
    assert rows[-1].scores["search"][target].value == best.values[0]
    said: list[str] = []
    again = open_study(open_store(), "tiny")
    assert FinalScorer(again, said.append).final_scores(best) == rows
    assert said == []
    assert stored_final_scores(again, best) == rows


def test_a_recipe_that_was_scored_is_not_scored_again(
    merge_study: MergeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_trials(merge_study, 2)
    merge_study.study.enqueue_trial(merge_study.trials()[1].params)
    with monkeypatch.context() as broken:
        break_merging(broken, RuntimeError("merged again"))
        run_trials(merge_study, 3)
    *_, scored, repeated = merge_study.trials()
    assert repeated.state is TrialState.COMPLETE
    assert repeated.values == scored.values
    assert repeated.user_attrs["same_as"] == scored.number
    assert repeated.user_attrs["recipe"] == scored.user_attrs["recipe"]
    as_first = replace(result_of(scored), seconds={}, dev=None, dev_quarters=[])
    assert result_of(repeated) == as_first


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_both_mergers_score_alike(make_spec: SpecMaker, home: Path, method: str) -> None:
    studies = [
        create_study(
            open_store(),
            make_spec(
                study=merger, merge={"method": method}, trials=4, evaluation={"merger": merger}
            ),
        )
        for merger in ("resident", "checkpoint")
    ]
    for merge_study in studies:
        run_trials(merge_study, 4)
    resident, checkpoint = (s.trials() for s in studies)
    assert [t.values for t in resident] == [t.values for t in checkpoint]
    assert [result_of(t).sha256 for t in resident] == [result_of(t).sha256 for t in checkpoint]
