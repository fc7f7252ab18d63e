"""Workers that share a study, die, are told to stop and lose their database: nothing is lost.

Covers search.worker, too.
"""

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import pytest
from optuna.trial import TrialState

from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.faults import persistently
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import CommandLine, SpecMaker, proxy_of, wait_until
from tests.forked import start
from tests.postgres import running
from tests.study.workers import Gate, work, work_and_die


def join(workers: Iterable[Any]) -> None:
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0


def check_whole(study: MergeStudy, trials: int) -> None:
    """Exactly so many trials count, each scored once, and every generation has its solutions."""
    counted = study.trials()
    assert Counter(t.state for t in counted) == {TrialState.COMPLETE: trials}
    everything = study.study.get_trials()
    assert {t.state for t in everything} <= {TrialState.COMPLETE, TrialState.FAIL}
    repeated = Counter(t.user_attrs["repeats"] for t in everything if "repeats" in t.user_attrs)
    assert set(repeated.values()) <= {1}
    failed = {t.number for t in everything if t.state is TrialState.FAIL}
    assert failed == set(repeated)
    generations = Counter(t.system_attrs.get("cma:generation") for t in counted)
    del generations[None]  # the baseline, and what was taken before any trial was scored
    latest = max(generations)
    assert sorted(generations) == list(range(latest + 1))
    assert all(n >= 4 for generation, n in generations.items() if generation < latest)


WORKERS = 8
TRIAL = 300_000  # calls and returns of functions from one candidate to the next, at most about


@pytest.mark.parametrize(
    ("kind", "kills"), [("sqlite", 12), ("postgres", 16), ("proxy of postgres", 8)]
)
def test_workers_killed_amid_their_trials(
    kind: str, kills: int, make_spec: SpecMaker, database: Callable[[str], str]
) -> None:
    url, trials = database(kind), 3 * kills + WORKERS  # more than the killed ones come to
    study = create_study(open_store(url), make_spec(evaluation={"max_retries": 1000}))
    chance = random.Random(0)
    doomed = [partial(work_and_die, calls=chance.randrange(TRIAL)) for _ in range(kills)]
    workers = [start(doomed.pop(), url, trials) for _ in range(WORKERS)]
    while workers:
        ended = wait([worker.sentinel for worker in workers])
        for worker in [w for w in workers if w.sentinel in ended]:
            worker.join()
            assert worker.exitcode == -signal.SIGKILL
            workers.remove(worker)
            if doomed:
                workers.append(start(doomed.pop(), url, trials))
    assert study.finished() < trials
    join([start(work, url, trials) for _ in range(WORKERS)])
    check_whole(study, trials)


def test_a_trial_that_kills_its_workers_fails(
    make_spec: SpecMaker, database: Callable[[str], str]
) -> None:
    url = database("sqlite")
    study = create_study(open_store(url), make_spec(evaluation={"max_retries": 1}))
    for _ in range(2):
        worker = start(work_and_die, url, 3)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
    run_trials(study, 3)
    first, *others = study.trials()
    assert first.state is TrialState.FAIL
    assert first.user_attrs["error"].startswith("2 workers died on it")
    assert [t.state for t in others] == [TrialState.COMPLETE] * 2
    assert len(study.study.get_trials()) == 4  # the first one twice


def test_server_stopped_and_crashed(make_spec: SpecMaker, command_line: CommandLine) -> None:
    gate, trials = Gate(), 40
    with running() as server, proxy_of(server.url, command_line) as proxy:
        store = open_store(server.url)
        study = create_study(store, make_spec())

        def scores() -> dict[int, float]:
            found = persistently(store.rdb, study.trials)
            return {t.number: t.values[0] for t in found if t.values is not None}

        direct = [start(gate.work, server.url, trials) for _ in range(2)]
        workers = [*direct, *(start(gate.work, proxy, trials) for _ in range(2))]

        def alive() -> bool:
            return all(worker.is_alive() for worker in workers)

        gate.let(12)
        wait_until(lambda: len(scores()) == 12, alive)
        before = scores()
        server.stop()
        gate.let(12)
        gate.wait_for("trying again", direct)
        server.start()
        assert before.items() <= scores().items()
        wait_until(lambda: len(scores()) >= 20, alive)

        before = scores()
        server.crash()
        server.start()
        assert before.items() <= scores().items()
        gate.let(1000)
        join(workers)
        check_whole(study, trials)


def test_proxy_killed_and_started_again(
    make_spec: SpecMaker, command_line: CommandLine, database: Callable[[str], str]
) -> None:
    url, trials, gate = database("sqlite"), 60, Gate()
    study = create_study(open_store(url), make_spec(racing={"blocks": 10}))
    with proxy_of(url, command_line) as proxy:
        workers = [start(gate.work, proxy, trials) for _ in range(3)]
        gate.let(20)
        wait_until(lambda: study.finished() == 20, lambda: all(w.is_alive() for w in workers))
    gate.let(1000)
    gate.wait_for("does not answer", workers)
    with proxy_of(url, command_line, port=int(proxy.rpartition(":")[2])):
        join(workers)
    check_whole(study, trials)
    best, stopped = study.best(), study.read().stopped
    assert best is not None and stopped
    assert all(trial.values[0] > best.values[0] for trial in stopped)
