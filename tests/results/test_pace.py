"""How fast a study goes is what its latest trials took while any was running."""

from datetime import datetime, timedelta

from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.results.pace import LATEST, Pace, pace_of

BEGIN = datetime(2026, 1, 1)


def ran(start: float, seconds: float) -> FrozenTrial:
    trial = create_trial(value=1.0)
    trial.datetime_start = BEGIN + timedelta(seconds=start)
    trial.datetime_complete = trial.datetime_start + timedelta(seconds=seconds)
    return trial


def test_one_after_the_other() -> None:
    assert pace_of([ran(0, 2), ran(2, 4)]) == Pace(3, 3)


def test_a_pause_between_two_runs_is_no_work() -> None:
    pace = pace_of([ran(0, 2), ran(100_000, 4)])
    assert pace == Pace(3, 3)
    assert pace.left(10) == 30


def test_several_at_once_finish_in_less_time_each() -> None:
    pace = pace_of([ran(0, 8), ran(0, 8), ran(0, 8), ran(0, 8)])
    assert pace == Pace(8, 2)
    assert (pace.at_once, pace.left(4)) == (4, 8)


def test_a_short_trial_within_a_long_one() -> None:
    assert pace_of([ran(4, 2), ran(0, 10)]) == Pace(6, 5)


def test_a_long_trial_counts_from_the_first_of_the_latest_on() -> None:
    """Beside it thousands have ended, of which those before the latest count no more."""
    short = [ran(n, 1) for n in range(1000)]
    pace = pace_of([*short, ran(0, 1000.5)])
    assert pace is not None and pace.left(LATEST) == LATEST - 0.5


def test_only_the_latest_count() -> None:
    slow = [ran(1000 * n, 500) for n in range(3)]
    fast = [ran(10_000 + n, 1) for n in range(LATEST)]
    assert pace_of([*slow, *fast]) == Pace(1, 1)


def test_trials_that_have_not_ended_have_no_pace() -> None:
    assert pace_of([]) is None
    assert pace_of([create_trial(state=TrialState.RUNNING)]) is None


def test_trials_that_take_no_time() -> None:
    pace = pace_of([ran(0, 0)])
    assert pace is not None and (pace.at_once, pace.left(5)) == (1, 0)
