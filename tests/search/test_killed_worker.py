"""A worker that is killed from outside costs nothing; a trial that kills its workers is given up.

Workers are killed at events of theirs, never after some seconds: they do it themselves there.

Covers search.deaths, too.
"""

import multiprocessing
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from evomerge_optuna.engines.base import Candidate, Engine
from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.search import objective, requeue
from evomerge_optuna.search.deaths import Place, is_to_blame
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.objective import Objective
from evomerge_optuna.search.requeue import retry
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import DIED_AT, ERROR
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import CommandLine, SpecMaker

# Forked from a process that has imported what takes seconds.
processes = multiprocessing.get_context("forkserver")
PRELOAD = """
    evomerge_optuna.search.loop evomerge_optuna.merging.memory optuna.storages._rdb.storage
    cmaes datasets mergekit.merge psycopg transformers.models.llama.modeling_llama
"""
processes.set_forkserver_preload(PRELOAD.split())

EVENTS = ("load", "merge", "pass", "store", "tell", "requeue")


class Killed:
    """Kills its process at the `after`-th event of a kind, of one recipe or of any."""

    def __init__(self, event: str, after: int, digest: str | None) -> None:
        self._event, self._left, self._digest = event, after, digest

    def come(self, event: str, digest: str | None = None) -> None:
        if event == self._event and (self._digest is None or digest == self._digest):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def work(url: str, trials: int, event: str = "", after: int = 1, digest: str | None = None) -> None:
    """A worker, killed at an event of its own."""
    torch.set_num_threads(1)
    killed, building = Killed(event, after, digest), [""]
    load, build = Objective.load, Builder.build
    evaluate, store, fail = Evaluator.evaluate, objective.store_result, requeue._fail

    def load_and_come(self: Objective) -> None:
        killed.come("load")
        load(self)

    def build_and_come(self: Builder, recipe: Recipe) -> Candidate:
        building[0] = recipe.digest()
        killed.come("merge", building[0])
        return build(self, recipe)

    def evaluate_and_come(self: Evaluator, engine: Engine, *args: Any, **named: Any) -> Any:
        with engine.counting(lambda: killed.come("pass", building[0])):
            return evaluate(self, engine, *args, **named)

    def store_and_come(*args: Any) -> None:
        killed.come("store")
        store(*args)
        killed.come("tell")

    def fail_and_come(*args: Any) -> None:
        killed.come("requeue")
        fail(*args)

    Objective.load = load_and_come  # type: ignore[method-assign]
    Builder.build = build_and_come  # type: ignore[method-assign]
    Evaluator.evaluate = evaluate_and_come  # type: ignore[assignment,method-assign]
    objective.store_result = store_and_come  # type: ignore[assignment]
    requeue._fail = fail_and_come
    run_trials(open_study(open_store(url), "tiny"), trials)


def run(url: str, trials: int, *args: Any) -> bool:
    """Runs a worker to its end; was it killed?"""
    process = processes.Process(target=work, args=(url, trials, *args), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def outcome(study: MergeStudy) -> list[tuple[dict[str, float], list[float], str]]:
    return [(t.params, t.values, result_of(t).sha256) for t in study.trials()]


@pytest.mark.parametrize(
    ("kills", "trials"), [(6, 7), pytest.param(40, 160, marks=pytest.mark.slow)]
)
def test_a_worker_killed_anywhere_costs_nothing(
    kills: int, trials: int, make_spec: SpecMaker, home: Path, tmp_path: Path
) -> None:
    never_stopped = create_study(open_store(f"sqlite:///{tmp_path / 'whole.db'}"), make_spec())
    run_trials(never_stopped, trials)
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = create_study(open_store(url), make_spec())
    chance, done = random.Random(0), Counter[str]()
    while done.total() < kills:
        event = EVENTS[done.total() % len(EVENTS)]
        # So far that all kills together are spread over the whole study.
        after = (
            chance.randint(1, 1 + 2 * trials // kills) if event not in ("load", "requeue") else 1
        )
        if event == "pass":
            after *= 2
        assert run(url, trials, event, after), f"not killed: {event} {after}"
        done[event] += 1
    assert not run(url, trials)
    assert Counter(t.state for t in study.trials()) == {TrialState.COMPLETE: trials}
    assert outcome(study) == outcome(never_stopped)


def test_a_trial_that_kills_its_workers_is_given_up_and_can_be_tried_again(
    make_spec: SpecMaker, database: Any, command_line: CommandLine
) -> None:
    url = database("sqlite")
    study = create_study(open_store(url), make_spec(evaluation={"max_retries": 2}))
    uniform = study.space.recipe(study.space.baseline()).digest()
    deaths = 0
    while run(url, 2, "pass", 1, uniform):
        deaths += 1
    assert deaths == study.spec.evaluation.max_retries + 1
    first, second = study.trials()
    assert first.state is TrialState.FAIL and second.state is TrialState.COMPLETE
    assert first.user_attrs[ERROR].startswith(f"{deaths} workers died on it")

    at = ("--storage", url)
    said, _ = command_line.run("study", "retry", "tiny", *at)
    assert said == (
        f"The next run repeats trial {first.number}. Run it with: evomerge-optuna study run tiny\n"
    )
    run_trials(study, 2)
    assert [t.state for t in study.trials()] == [TrialState.COMPLETE] * 2
    _, error = command_line.run("study", "retry", "tiny", *at, code=2)
    assert error == "Error: study 'tiny': no trial was given up; no trial has failed for good\n"


def test_one_trial_killed_in_many_places_is_not_to_blame(
    make_spec: SpecMaker, database: Any
) -> None:
    url = database("sqlite")
    given = {"max_retries": 2, "batch_size": 4}  # five batches of search, five of dev
    study = create_study(open_store(url), make_spec(evaluation=given))
    for event, after in [("tell", 1), ("pass", 7), ("tell", 1), ("pass", 1), ("merge", 1)]:
        assert run(url, 1, event, after)
    assert not run(url, 1)
    (trial,) = study.trials()
    assert trial.state is TrialState.COMPLETE
    assert [tuple(place) for place in trial.user_attrs[DIED_AT]] == [
        ("", 0),
        ("search", 1),
        ("merging", 0),
    ]


def test_what_cannot_be_tried_again(make_spec: SpecMaker, home: Path) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 1)
    with pytest.raises(UsageError, match="trial 0 has not failed for good"):
        retry(study, 0)
    with pytest.raises(UsageError, match="there is no trial 9"):
        retry(study, 9)
    study.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"recipe": {}}))
    assert retry(study, 1) == [1]
    with pytest.raises(UsageError, match="trial 1 has not failed for good"):
        retry(study, 1)


PLACES = st.builds(Place, st.sampled_from(["merging", "search", "dev"]), st.integers(0, 1000))


@given(PLACES, st.integers(0, 5), st.lists(PLACES, max_size=10))
def test_it_is_to_blame_once_it_died_often_enough_at_one_place(
    place: Place, retries: int, before: list[Place]
) -> None:
    died_at = [Place(), *before]
    while not is_to_blame(died_at, retries):
        died_at.append(place)
        assert len(died_at) <= 1 + len(before) + retries + 1
    assert is_to_blame(died_at, retries)


@given(st.integers(2, 5), st.integers(1, 30))
def test_it_is_not_where_it_gets_further_or_less_far_each_time(retries: int, deaths: int) -> None:
    died_at = [Place(), *(Place("search", 1 + 9 * (n % 3)) for n in range(deaths))]
    assert not is_to_blame(died_at[: 10 * retries], retries)
