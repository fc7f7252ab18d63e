"""A worker takes the next trial of a study, which it may share with workers on any machine."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.search.next_trial import add_drawn_trial, start_waiting_trial
from evomerge_optuna.search.requeue import requeue_dead, requeue_running
from evomerge_optuna.search.samplers import make_sampler
from evomerge_optuna.store.lock import Lease, hold, new_worker
from evomerge_optuna.study.schema import BASELINE, DIED_AT, START, WORKER
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials, lease_of

_POLL = 1.0  # seconds between two looks at the trials of others


@dataclass(frozen=True)
class Taken:
    """A trial to run, and all trials of its study as they were when it was taken."""

    trial: optuna.Trial
    before: Trials


class Worker:
    """Takes trials; all of a study's workers together take no more than wanted."""

    def __init__(self, merge_study: MergeStudy, own: Lease) -> None:
        self._study = merge_study
        self._lease = own
        self._has_loaded = False

    def next_trials(
        self,
        wanted: int,
        load: Callable[[], None],
        no_better_in: int | None = None,
        is_over: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda _: None,
        at_once: int = 1,
    ) -> list[Taken]:
        """The next trials to run, `at_once` of them where the study is not at an end before.

        None once `wanted` trials are finished, or the search has converged, or it is over. As long
        as others run the last ones it waits, for one of them might die, or be better; and as long
        as others run trials that the search may begin at.

        Args:
            wanted: finished trials in all.
            no_better_in: trials without a better one by which it has converged; None: it never has.
            load: called once, as soon as there is a trial to take, and before it is taken: who
                dies while loading dies of no trial.
            at_once: how many are taken together. Where one of them ends does not hang on where
                the search was stopped: each but the trials that it begins with is whole.
        """
        said = ""
        while not is_over():
            with hold(self._study.store.locks, self._study.name):
                trials = self._study.read()
                if any(map(self._is_cut_short, trials.of(TrialState.RUNNING))):
                    requeue_dead(self._study, self._is_dead)
                    self._requeue_own("its worker lost it")
                    trials = self._study.read()
                running = len(trials.of(TrialState.RUNNING))
                has_converged = trials.have_converged(no_better_in)
                awaits_start = self._awaits_start(trials)
                if trials.finished >= wanted or (has_converged and not running):
                    return []
                is_there_one = trials.finished + running < wanted and not (
                    has_converged or awaits_start
                )
                if is_there_one and self._has_loaded:
                    batch = [Taken(self._take(trials), trials)]
                    while self._has_more(batch, trials := self._study.read(), wanted, at_once):
                        batch.append(Taken(self._take(trials), trials))
                    return batch
            if is_there_one:
                load()
                self._has_loaded = True
                continue
            which = "first" if awaits_start else "last"
            if which != said:
                say(f"waiting for the {which} trials, which are with other workers")
                said = which
            time.sleep(_POLL)
        return []

    def _has_more(self, batch: Sequence[Taken], trials: Trials, wanted: int, at_once: int) -> bool:
        """Is the next trial one to be taken together with these?

        Which are one batch depends on places in the study alone, of those that it did not begin
        with: one that was cut short goes on as the same batch. A trial that a worker has died on is
        run alone, so that it is found to be to blame.
        """
        running = len(trials.of(TrialState.RUNNING))
        if trials.finished + running >= wanted or self._awaits_start(trials):
            return False
        waiting = trials.of(TrialState.WAITING)[:1]
        last_and_next = (batch[-1].trial.user_attrs, *(trial.user_attrs for trial in waiting))
        if any(DIED_AT in attributes for attributes in last_and_next):
            return False
        position = trials.position(waiting[0]) if waiting else trials.next_position
        begun = sum(BASELINE in trial.user_attrs for trial in trials.counted)
        return (position - begun) % at_once > 0

    def _awaits_start(self, trials: Trials) -> bool:
        """Is a trial running that CMA-ES might begin at, before it has drawn any?"""
        spec = self._study.spec
        if not (spec.starts and spec.sampler.row.begins_at_start) or trials.of(TrialState.WAITING):
            return False
        are_running = any(BASELINE in t.user_attrs for t in trials.of(TrialState.RUNNING))
        return are_running and START not in self._study.attributes()

    def _take(self, trials: Trials) -> optuna.Trial:
        """A waiting trial, or a new one."""
        study, spec = self._study.study, self._study.spec
        waiting = trials.of(TrialState.WAITING)
        position = trials.position(waiting[0]) if waiting else trials.next_position
        alone = len(self._study.space.ranges()) == 1
        begins = spec.sampler.row.begins_at_start and not waiting
        start = self._study.start if begins else None
        study.sampler = make_sampler(spec.sampler, position, start, alone=alone)
        if not waiting:
            return add_drawn_trial(self._study, trials, self._lease)
        trial = start_waiting_trial(self._study, trials)
        trial.set_user_attr(WORKER, asdict(self._lease))
        return trial

    def requeue_own(self, reason: str) -> None:
        """Queues again what this worker was running; for a time when it runs nothing."""
        with hold(self._study.store.locks, self._study.name):
            self._requeue_own(reason)

    def _requeue_own(self, reason: str) -> None:
        requeue_running(self._study, self._is_own, reason)

    def _is_own(self, trial: FrozenTrial) -> bool:
        """Was it taken by this worker, or by one that was stopped between taking and signing?"""
        found = lease_of(trial)
        return found is None or found.worker == self._lease.worker

    def _is_cut_short(self, trial: FrozenTrial) -> bool:
        return self._is_own(trial) or self._is_dead(trial)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        found = lease_of(trial)
        if found is None or found.worker == self._lease.worker:
            return False
        return not self._study.store.locks.is_alive(found)


@contextmanager
def working(merge_study: MergeStudy) -> Iterator[Worker]:
    """A worker of this process, which others see alive as long as the block runs."""
    with merge_study.store.locks.lease(new_worker()) as own:
        yield Worker(merge_study, own)
