"""One line says how fast a study goes, what is left, the best beside the baselines, and how many
failed."""

from datetime import datetime, timedelta

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.report.live import counted_line, standing_line
from evomerge_optuna.report.numbers import show_seconds
from evomerge_optuna.spec import Objective
from evomerge_optuna.study.schema import BASELINE, ERROR
from evomerge_optuna.study.trials import Trials

START = datetime(2026, 1, 1)


def trial(value: float | None, baseline: str | None = None) -> FrozenTrial:
    attributes = {BASELINE: baseline} if baseline else {}
    if value is None:
        return create_trial(state=TrialState.FAIL, user_attrs={ERROR: "NaN"})
    return create_trial(value=value, user_attrs=attributes)


def trials(*found: FrozenTrial, seconds: float = 6) -> Trials:
    study = optuna.create_study(direction="maximize")
    study.add_trials(found)
    added = study.trials
    for place, one in enumerate(added):
        one.datetime_start = START + timedelta(seconds=place * seconds)
        one.datetime_complete = one.datetime_start + timedelta(seconds=seconds)
    return Trials(added, (Objective(maximize="math.accuracy"),))


def test_the_best_beside_the_first_and_the_best_of_the_baselines() -> None:
    given = (trial(0.125, "uniform merge"), trial(0.25, "add at 1"), trial(0.1, "mul at 1"))
    assert standing_line(trials(*given, trial(0.5)), 100) == (
        "6 s a trial, about 10 min left; best math.accuracy 0.5 (trial 3), beside 0.25 (add at 1) "
        "and 0.125 (uniform merge)"
    )


def test_a_best_that_is_a_baseline_is_not_beside_itself() -> None:
    assert "beside" not in standing_line(trials(trial(0.5, "uniform merge"), trial(0.25)), 2)


def test_the_share_of_failed_trials() -> None:
    line = counted_line("s", trials(trial(0.5), trial(None), trial(None), trial(0.25)), 4)
    assert (
        line == "s: 4/4 trials; 6 s a trial; best math.accuracy 0.5 (trial 0); 2 of 4 failed (50%)"
    )


def test_before_anything_has_finished() -> None:
    assert counted_line("s", trials(), 10) == "s: 0/10 trials; no score yet"


def test_seconds_as_people_say_them() -> None:
    found = [show_seconds(s) for s in (0.123, 12.3, 89, 91, 5400, 7500, 200_000)]
    assert found == ["0.12 s", "12 s", "89 s", "2 min", "1 h 30 min", "2 h 05 min", "2 days 7 h"]
