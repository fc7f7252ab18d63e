"""Who runs a trial, whether it still lives, and what becomes of a trial whose worker is gone."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.study.studies import INTERRUPTED, MergeStudy

WORKER = "worker"
_CLAIM_SECONDS = 5.0  # a living worker signs the trial it took within milliseconds


@dataclass(frozen=True)
class Worker:
    """A process: its host, its id, and when it started (ids are used again)."""

    host: str
    pid: int
    started: float

    @classmethod
    def this(cls) -> "Worker":
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Certainly dead. A worker on another host is taken to live."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            return abs(process.create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True


def claim(trial: optuna.Trial) -> None:
    """Signs a trial with this process."""
    trial.set_user_attr(WORKER, asdict(Worker.this()))


def position(merge_study: MergeStudy, number: int) -> int:
    """A trial's place in the study: interrupted trials and their repeats count once."""
    return sum(trial.number < number for trial in merge_study.trials())


def requeue_abandoned(merge_study: MergeStudy) -> int:
    """Queues again what dead workers on this host left running; returns how many."""
    unsigned = {t.number for t in _running(merge_study) if WORKER not in t.user_attrs}
    if unsigned:
        time.sleep(_CLAIM_SECONDS)
    return _requeue(
        merge_study,
        lambda t: _is_abandoned(t) if WORKER in t.user_attrs else t.number in unsigned,
        "its worker died",
    )


def requeue_own(merge_study: MergeStudy) -> int:
    """Queues again what this process was running when it was told to stop."""
    mine = asdict(Worker.this())
    return _requeue(merge_study, lambda t: t.user_attrs.get(WORKER) == mine, "its worker stopped")


def _requeue(merge_study: MergeStudy, chosen: Callable[[FrozenTrial], bool], reason: str) -> int:
    abandoned = [trial for trial in _running(merge_study) if chosen(trial)]
    repeated = {t.user_attrs.get("repeats") for t in merge_study.study.get_trials(deepcopy=False)}
    for trial in abandoned:
        # Queued before it is failed: whatever happens in between, the trial is not lost.
        if trial.number not in repeated:
            merge_study.study.add_trial(_repeat(merge_study, trial))
        storage = merge_study.store.rdb
        storage.set_trial_user_attr(trial._trial_id, INTERRUPTED, reason)
        merge_study.study.tell(trial.number, state=TrialState.FAIL)
    return len(abandoned)


def _repeat(merge_study: MergeStudy, trial: FrozenTrial) -> FrozenTrial:
    """A waiting trial with the same parameters and the same sampler state.

    A trial cut short before all its parameters were chosen is chosen anew: the sampler, seeded by
    position, chooses the same.
    """
    attributes: dict[str, Any] = dict(trial.system_attrs)
    if trial.params.keys() != merge_study.space.ranges().keys():
        kept = {k: v for k, v in attributes.items() if k == "fixed_params"}
        return create_trial(
            state=TrialState.WAITING, system_attrs=kept, user_attrs={"repeats": trial.number}
        )
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=attributes,
        user_attrs={"repeats": trial.number},
    )


def _is_abandoned(trial: FrozenTrial) -> bool:
    """Its worker is gone, or it is this process, which is about to begin and runs none."""
    worker = Worker(**trial.user_attrs[WORKER])
    return worker == Worker.this() or worker.is_gone()


def _running(merge_study: MergeStudy) -> list[FrozenTrial]:
    return merge_study.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
