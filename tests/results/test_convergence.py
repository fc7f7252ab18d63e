"""A search that has converged says so, and stops there where its spec says that it may."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna import run_study
from evomerge_optuna.report.notes import study_note
from evomerge_optuna.results.convergence import PATIENCE, convergence_remark
from evomerge_optuna.results.hypervolume import hypervolume
from evomerge_optuna.search import loop
from evomerge_optuna.spec import Objective, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.studies import MergeStudy, open_study
from evomerge_optuna.study.trials import Trials

ONE = (Objective(maximize="t.accuracy"),)
TWO = (Objective(maximize="t.accuracy"), Objective(minimize="layers"))


def trials_of(objectives: tuple[Objective, ...], values: list[tuple[int, ...]]) -> Trials:
    found = []
    for number, value in enumerate(values):
        trial = create_trial(values=[float(x) for x in value])
        trial.number = number
        found.append(trial)
    return Trials(found, objectives, set())


@given(st.lists(st.tuples(st.integers(0, 9)), min_size=1))
def test_trials_since_one_was_better(values: list[tuple[int, ...]]) -> None:
    improved = [i for i, value in enumerate(values) if value > max(values[:i], default=(-1,))]
    assert trials_of(ONE, values).since_better == len(values) - 1 - improved[-1]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_of_several_objectives_trials_since_the_hypervolume_grew(
    values: list[tuple[int, ...]],
) -> None:
    volumes = [
        hypervolume([(-a, b) for a, b in values[: n + 1]], (1, 6)) for n in range(len(values))
    ]
    grew = [n for n, volume in enumerate(volumes) if n == 0 or volume > volumes[n - 1]]
    assert trials_of(TWO, values).since_better == len(values) - 1 - grew[-1]


def test_a_trial_that_waits_is_still_to_be_tried() -> None:
    trials = trials_of(ONE, [(1,), (0,), (0,)])
    assert trials.have_converged(2)
    assert not trials.have_converged(3)
    assert not trials.have_converged(None)
    waiting = create_trial(state=TrialState.WAITING)
    waiting.number = 3
    assert not Trials([*trials.everything, waiting], ONE, set()).have_converged(2)


def test_what_a_study_began_with_is_no_sign_that_its_search_has_converged() -> None:
    trials = trials_of(ONE, [(1,), (0,), (0,), (0,)])
    for trial in trials.everything[:3]:
        trial.set_user_attr(BASELINE, "all at 1")
    assert trials.since_better == 1
    assert not trials.have_converged(2)


@pytest.fixture
def uniform_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trial but the first is worse than it by far."""

    def spoiled(study: Any, trial: Any, values: list[float] | None) -> FrozenTrial:
        worse = values and [value * (1 + trial.number) for value in values]
        return study.tell(trial, worse)

    monkeypatch.setattr(loop, "_tell", spoiled)


def opened() -> MergeStudy:
    return open_study(open_store(), "tiny")


@pytest.mark.usefixtures("uniform_is_best")
def test_a_run_stops_where_nothing_is_better_any_more(
    home: Path, spec_content: Callable[..., dict[str, Any]]
) -> None:
    spec = spec_content(trials=12, stop={"no_better_in": 4})
    said: list[str] = []
    run_study(spec, say=said.append)
    assert opened().finished() == 5
    (line,) = [line for line in said if line.startswith("tiny: 5 trials")]
    assert "it stops here (stop.no_better_in); go on with: evomerge-optuna study run tiny" in line
    assert line.endswith(" --no-better-in 0")
    assert said[-1].startswith("None of the last 4 trials was better than the best before them")
    assert "The best is still trial 0 (uniform merge), with which the study began" in said[-1]
    assert said[-1] in study_note(opened())

    run_study("tiny")
    assert opened().finished() == 5  # it does not go on by itself
    run_study("tiny", no_better_in=6, say=said.append)
    assert opened().finished() == 7
    (line,) = [line for line in said if line.startswith("tiny: 7 trials")]
    assert "it stops here (--no-better-in); go on with: " in line
    run_study(spec | {"stop": {"no_better_in": 7}})  # which is stored
    assert opened().finished() == 8
    assert opened().spec.stop == parse_spec(spec | {"stop": {"no_better_in": 7}}).stop
    opened().study.enqueue_trial(dict.fromkeys(opened().space.ranges(), 0.3))
    run_study("tiny")
    assert opened().finished() == 9  # what somebody queued is tried
    run_study("tiny", no_better_in=0)
    assert opened().finished() == 12


@pytest.mark.usefixtures("uniform_is_best")
def test_a_search_without_stop_says_it_after_a_while(
    home: Path, spec_content: Callable[..., dict[str, Any]]
) -> None:
    study = create_study(open_store(), parse_spec(spec_content()))
    loop.run_trials(study, 3)
    assert convergence_remark(study, study.read()) == ""
    many = trials_of(study.spec.objectives, [(1,)] + [(2,)] * PATIENCE)
    for trial in many.everything:
        trial.user_attrs.update(study.trials()[min(trial.number, 1)].user_attrs)
    remark = convergence_remark(study, many)
    assert f"None of the last {PATIENCE} trials" in remark
    assert "The best is still trial 0 (uniform merge)" in remark
    del many.everything[0].user_attrs[BASELINE]
    remark = convergence_remark(study, many)
    assert remark.endswith("the search may have converged.")


@pytest.mark.usefixtures("home")
def test_workers_stop_together(spec_content: Callable[..., dict[str, Any]]) -> None:
    study = create_study(open_store(), parse_spec(spec_content(trials=30)))
    run_study("tiny", workers=2, no_better_in=1)
    trials = study.read()
    assert trials.have_converged(1)
    assert trials.finished < 30
    assert not trials.of(TrialState.RUNNING)
