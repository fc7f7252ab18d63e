"""Workers that share a study, die, are told to stop and lose their database: nothing is lost."""

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

from evomerge_optuna.study.runner import run_study
from evomerge_optuna.study.storage import open_store
from evomerge_optuna.study.studies import MergeStudy, create_study, open_study
from tests.conftest import SpecMaker

WORKERS = 8
TRIALS = 400

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


def start(url: str, trials: int) -> Any:
    process = processes.Process(target=work, args=(url, trials), daemon=True)
    process.start()
    return process


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


def test_workers_killed_every_second(make_spec: SpecMaker, storage_url: str, home: Path) -> None:
    spec = make_spec(evaluation={"max_retries": 1000})
    study = create_study(open_store(storage_url), spec)
    workers = [start(storage_url, TRIALS) for _ in range(WORKERS)]
    chance = random.Random(0)
    killed = 0
    began = time.monotonic()
    while study.finished() < TRIALS:
        assert time.monotonic() < began + 240
        time.sleep(1)
        victim = chance.randrange(WORKERS)
        if workers[victim].is_alive():
            workers[victim].kill()
            killed += 1
        workers[victim] = start(storage_url, TRIALS)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert killed > 3
    check_whole(study, TRIALS)
