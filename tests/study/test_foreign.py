"""Trials that people add or enqueue are run, or named as foreign; nothing stumbles over them."""

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.report.tables import state_counts, study_json, study_table
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.compare import compare
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.requeue import retry
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import REPEATS, RESULT
from evomerge_optuna.study.studies import MergeStudy, list_studies
from evomerge_optuna.study.trials import Trials
from evomerge_optuna.study.unchanged import check_unchanged
from tests.conftest import CommandLine, SpecMaker

SPECS: dict[str, dict[str, Any]] = {
    "cmaes": {},
    "nsga2": {"sampler": {"name": "nsga2", "seed": 1, "population": 4}},
}


def foreign_trials(study: MergeStudy) -> list[FrozenTrial]:
    """What people add to a study: hardly any of it is right."""
    ours = study.space.baseline()
    names = list(ours)
    floats = {name: FloatDistribution(0, 5) for name in names}

    def done(params: dict[str, Any], distributions: dict[str, Any], **more: Any) -> FrozenTrial:
        return create_trial(value=0.5, params=params, distributions=distributions, **more)

    return [
        done({}, {}),
        done(ours, floats),
        done(ours, floats, user_attrs={"result": "good", "recipe": "mine", "baseline": True}),
        done(ours, floats, user_attrs={RESULT: {"scores": None}, "recipe": {}}),
        done({"x": "a"}, {"x": CategoricalDistribution(["a", "b"])}),
        done({"y": 3}, {"y": IntDistribution(0, 9)}, system_attrs={"cma:generation": 0}),
        done(ours | {"z": 1.0}, floats | {"z": FloatDistribution(0, 1)}),
        create_trial(state=TrialState.FAIL, user_attrs={"error": 3}),
        create_trial(state=TrialState.PRUNED, params=ours, distributions=floats, value=9.0),
        create_trial(state=TrialState.PRUNED, intermediate_values={0: 1.0}),
    ]


@pytest.mark.parametrize("sampler", SPECS)
def test_trials_that_were_added_change_nothing(
    sampler: str, make_spec: SpecMaker, database: Callable[[str], str], tmp_path: Path, home: Path
) -> None:
    alone = create_study(
        open_store(f"sqlite:///{tmp_path / 'alone.db'}"), make_spec(**SPECS[sampler])
    )
    run_trials(alone, 5)
    study = create_study(open_store(database("sqlite")), make_spec(**SPECS[sampler]))
    added = foreign_trials(study)
    study.study.add_trials(added)
    run_trials(study, 3)
    study.study.add_trials(added)
    run_trials(study, 5)

    def outcome(of: MergeStudy) -> list[tuple[Any, ...]]:
        return [(t.params, t.values, result_of(t).sha256) for t in of.trials()]

    assert outcome(study) == outcome(alone)
    foreign = study.read().foreign
    assert len(foreign) == 2 * len(added)
    assert sum(state_counts(study).values()) == 5
    assert study_json(study)["foreign"] == sorted(foreign)
    study_table(study)
    describe_study(study)
    compare([study])
    (summary,) = list_studies(study.store)
    assert summary.trials == 5
    for number in foreign:
        with pytest.raises(UsageError, match=f"trial {number} of study 'tiny' is foreign"):
            find_trial(study, str(number))
        with pytest.raises(UsageError, match="has not failed for good"):
            retry(study, number)


def test_trials_that_were_enqueued_are_run(make_spec: SpecMaker, home: Path) -> None:
    study = create_study(open_store(), make_spec())
    name, other, *_ = study.space.ranges()
    run_trials(study, 2)
    study.study.add_trials(foreign_trials(study))
    study.study.enqueue_trial({name: 1.25}, user_attrs={"baseline": True, "worker": "me"})
    study.study.enqueue_trial({other: 0.75, "unknown": 3})
    for wrong in ("much", 2.5):
        study.study.enqueue_trial({name: wrong})
    run_trials(study, 7)
    *_, first, second, third, fourth, last = study.trials()
    assert first.params[name] == 1.25 and second.params[other] == 0.75
    assert all(t.params.keys() == study.space.ranges().keys() for t in (first, second, last))
    assert {t.state for t in (first, second, last)} == {TrialState.COMPLETE}
    assert [t.user_attrs["error"] for t in (third, fourth)] == [
        f"it was enqueued with {name} = 'much', which is no number from 0 to 2",
        f"it was enqueued with {name} = 2.5, which is no number from 0 to 2",
    ]
    study_table(study)
    describe_study(study)


def test_running_trials_without_a_worker_are_repeated(make_spec: SpecMaker, home: Path) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 1)
    for worker in ({}, {"worker": "me"}, {"worker": {"name": "me"}}):
        study.study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=worker))
    run_trials(study, 5)
    assert [t.state for t in study.trials()] == [TrialState.COMPLETE] * 5


def test_a_parameter_of_another_kind_is_told(make_spec: SpecMaker, home: Path) -> None:
    """Optuna stores one kind of distribution a name: no trial of ours could be stored."""
    study = create_study(open_store(), make_spec())
    name = next(iter(study.space.ranges()))
    study.study.add_trial(
        create_trial(value=1.0, params={name: 1}, distributions={name: IntDistribution(0, 2)})
    )
    with pytest.raises(EvomergeError, match=f"trial 1 .* {re.escape(name)} is of another"):
        run_trials(study, 2)


def test_they_are_named(make_spec: SpecMaker, command_line: CommandLine, home: Path) -> None:
    study = create_study(open_store(), make_spec(trials=2))
    study.study.add_trials(foreign_trials(study)[:2])
    foreign = "foreign trials, added by something else and used for nothing here: 1, 2"
    said: list[str] = []
    check_unchanged(study, said.append)
    assert any(line.startswith(foreign) for line in said)
    assert foreign in command_line.run("study", "show", "tiny")[0]


@given(st.lists(st.one_of(st.none(), st.integers(-2, 12), st.text(max_size=1)), max_size=10))
def test_whatever_is_said_to_be_repeated_counts_once_at_most(repeats: list[Any]) -> None:
    """The attribute may come from another study, whose numbers are others."""
    everything = [
        FrozenTrial(
            number, TrialState.COMPLETE, 1.0, datetime.now(), datetime.now(), {}, {},
            {} if of is None else {REPEATS: of}, {}, {}, number,
        )
        for number, of in enumerate(repeats)
    ]  # fmt: skip
    trials = Trials(everything, [])
    assert trials.finished == len(trials.counted)
    assert all(0 <= trials.position(trial) < max(1, trials.next_position) for trial in everything)
