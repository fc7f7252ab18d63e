"""One line says how far a study is, and how to continue it."""

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.report.outcome import best_so_far, outcome_line
from evomerge_optuna.spec import Objective
from evomerge_optuna.study.schema import ERROR
from evomerge_optuna.study.trials import Trials


def trials(*found: FrozenTrial) -> Trials:
    study = optuna.create_study(direction="maximize")
    study.add_trials(found)
    return Trials(study.trials, (Objective(maximize="math.accuracy"),))


def scored(value: float) -> FrozenTrial:
    return create_trial(value=value)


FAILED = create_trial(state=TrialState.FAIL, user_attrs={ERROR: "NaN"})


def test_the_best_is_named_with_its_trial() -> None:
    assert best_so_far(trials(scored(0.25), scored(0.5))) == "best math.accuracy 0.5 (trial 1)"
    assert best_so_far(trials(FAILED)) == "no score yet"


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ([scored(0.5), scored(0.25)], "s 1: 2 trials; best math.accuracy 0.5 (trial 0)"),
        (
            [scored(0.5), FAILED],
            "s 1: 2 trials; best math.accuracy 0.5 (trial 0); "
            "1 failed (evomerge-optuna study show 's 1' --json)",
        ),
        ([FAILED], "s 1: 1 trials; no score yet; 1 failed (evomerge-optuna study show 's 1' --json)"
         "; the time is up; continue with: COMMAND"),
    ],
)  # fmt: skip
def test_what_a_run_came_to(found: list[Any], line: str) -> None:
    assert outcome_line("s 1", trials(*found), 2, "COMMAND") == line
