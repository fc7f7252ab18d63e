"""Racing: what is surely worse than the best is stopped, and nothing else changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from evomerge_optuna.engines.base import Engine
from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import Interrupted, SpecError, StudyChangedError
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.report.notes import trial_note
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.racing import Race
from evomerge_optuna.spec import RacingSpec, StudySpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import SAME_AS, STOPPED
from evomerge_optuna.study.studies import MergeStudy, continue_with, open_study, recipe_of
from tests.conftest import SpecMaker

BLOCKS = 10
TRIALS = 12
TARGET = "words.perplexity"


@pytest.fixture
def store(home: Path) -> Store:
    return open_store()


@pytest.fixture(scope="module")
def raced_spec(make_spec: SpecMaker) -> StudySpec:
    return make_spec(racing={"blocks": BLOCKS, "p_threshold": 0.2}, trials=TRIALS)


@pytest.fixture(scope="module")
def finished(raced_spec: StudySpec, tmp_path_factory: pytest.TempPathFactory) -> MergeStudy:
    """A study that was never stopped; all tests share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_HOME", str(tmp_path_factory.mktemp("home")))
        study = create_study(open_store(), raced_spec)
        run_trials(study, TRIALS)
    return study


def test_stopped_trials_count_with_what_was_scored(finished: MergeStudy) -> None:
    stopped = finished.read().stopped
    assert 0 < len(stopped) < TRIALS - 1
    assert all(trial.state is TrialState.COMPLETE for trial in finished.trials())
    trial = stopped[0]
    done = len(trial.intermediate_values)
    assert done < BLOCKS
    assert trial.user_attrs[STOPPED] == 2 * done == result_of(trial).scores[TARGET].n
    engine = Builder(finished.spec.evaluation).build(recipe_of(trial)).engine
    evaluator = Evaluator(finished.spec)
    blocks = [
        found
        for n in range(done)
        for found in evaluator.evaluate_blocks(engine, "search", [Block(n, BLOCKS, 1)])
    ]
    assert trial.values[0] == evaluator.join(blocks).scores[TARGET].value
    assert f"Stopped after {2 * done} problems" in trial_note(finished, trial, finished.read())


def test_no_stopped_trial_is_the_best(finished: MergeStudy) -> None:
    best = finished.best()
    assert best is not None
    assert STOPPED not in best.user_attrs
    assert len(best.intermediate_values) == BLOCKS
    engine = Builder(finished.spec.evaluation).build(recipe_of(best)).engine
    evaluator = Evaluator(finished.spec)
    whole = evaluator.evaluate(engine, "search").scores[TARGET]
    assert best.values[0] == pytest.approx(whole.value)
    dev = evaluator.evaluate(engine, "dev").scores
    assert result_of(best).dev == dev
    assert not {t.number for t in finished.read().stopped} & {t.number for t in finished.ranked()}
    reached = float("inf")
    for trial in finished.trials():
        if STOPPED in trial.user_attrs:
            assert trial.values[0] > reached
        assert (result_of(trial).dev is not None) == (trial.values[0] < reached)
        reached = min(reached, trial.values[0])


def outcome(study: MergeStudy) -> list[Any]:
    return [
        (t.params, t.values, t.intermediate_values, t.user_attrs.get(STOPPED))
        for t in study.trials()
    ]


def test_a_race_stopped_anywhere_goes_on_as_if_never_stopped(
    store: Store, finished: MergeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = create_study(store, finished.spec)
    evaluate = Evaluator.evaluate_blocks
    left = 0

    def stop(self: Evaluator, *given: Any, **named: Any) -> list[Evaluation]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return evaluate(self, *given, **named)

    for calls in (4, 9, 1):  # in the middle of a trial
        left = calls
        with monkeypatch.context() as patch:
            patch.setattr(Evaluator, "evaluate_blocks", stop)
            with pytest.raises(Interrupted):
                run_trials(open_study(store, study.name), TRIALS)
    run_trials(open_study(store, study.name), TRIALS)
    assert len(study.study.get_trials()) == TRIALS + 3
    assert outcome(study) == outcome(finished)


def test_a_recipe_that_was_stopped_is_not_scored_again(store: Store, raced_spec: StudySpec) -> None:
    study = create_study(store, raced_spec)
    run_trials(study, 6)
    stopped, best = study.read().stopped[0], study.best()
    assert best is not None
    for trial in (stopped, best):
        study.study.enqueue_trial(trial.params)
    run_trials(study, 8)
    for again, before in zip(study.trials()[-2:], (stopped, best), strict=True):
        assert again.user_attrs[SAME_AS] == before.number
        assert again.values == before.values
        assert again.intermediate_values == before.intermediate_values
        assert again.user_attrs.get(STOPPED) == before.user_attrs.get(STOPPED)
    assert study.best() == best


class Canned:
    """An evaluator to which every candidate has these block scores, and this one in all."""

    def __init__(self, blocks: list[float], value: float) -> None:
        self.blocks, self.value = blocks, value
        self.asked = 0

    def evaluate_blocks(
        self, engine: Engine, split: str, blocks: Sequence[Block]
    ) -> list[Evaluation]:
        self.asked += len(blocks)
        return [self._evaluation(self.blocks[block.number]) for block in blocks]

    def join(self, blocks: list[Evaluation]) -> Evaluation:
        return self._evaluation(self.value)

    def _evaluation(self, value: float) -> Evaluation:
        return Evaluation("search", {TARGET: Score(value, value, value, 2)}, ())


@pytest.mark.parametrize(("times", "asked"), [(9.0, 3), (1.0, BLOCKS)])
def test_what_looks_best_is_scored_on_all_problems(
    finished: MergeStudy, times: float, asked: int
) -> None:
    """Though its blocks are all worse: a perplexity is no mean of its blocks'."""
    best = finished.best()
    assert best is not None
    blocks = [100.0 * value for value in best.intermediate_values.values()]
    losing = Canned(blocks, times * best.values[0])
    racing = RacingSpec(blocks=BLOCKS, p_threshold=0.2)
    trial = optuna.create_study().ask()
    Race(finished, racing, losing).score(trial, None, best)
    assert losing.asked == asked


def test_too_many_blocks(store: Store, make_spec: SpecMaker) -> None:
    with pytest.raises(SpecError, match=r"racing.blocks: 21, but tasks.words.data.search has 20"):
        create_study(store, make_spec(racing={"blocks": 21}))


def test_racing_may_not_change(store: Store, make_spec: SpecMaker) -> None:
    created = create_study(store, make_spec(racing={"blocks": 10}))
    with pytest.raises(StudyChangedError, match=r"racing\.blocks: 10 -> 20"):
        continue_with(created, make_spec(racing={"blocks": 20}))
    with pytest.raises(StudyChangedError, match="racing"):
        continue_with(created, make_spec())
