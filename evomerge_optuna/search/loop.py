"""The loop that runs trials until a study has as many as wanted."""

import errno
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import CandidateError, EvomergeError, Interrupted, NotFiniteError
from evomerge_optuna.explain import kind_and_message
from evomerge_optuna.search.grace import grace_period
from evomerge_optuna.search.objective import Objective
from evomerge_optuna.search.requeue import requeue
from evomerge_optuna.search.worker import Taken, working
from evomerge_optuna.spaces.space import distributions
from evomerge_optuna.store.faults import (
    ATTEMPTS,
    database_errors,
    database_failures,
    is_lost_connection,
    patience,
    persistently,
    wait_for_proxy,
)
from evomerge_optuna.store.lock import hold
from evomerge_optuna.store.optuna_internals import is_finished
from evomerge_optuna.study.foreign import require_same_kinds
from evomerge_optuna.study.renamed import follow, following, identify
from evomerge_optuna.study.schema import ERROR
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

OnTrial = Callable[[FrozenTrial, Trials], None]

# When this many candidates in a row fail alike, something else is wrong.
ALIKE = 5
_LONGEST = 500  # characters of a candidate's error


def run_trials(
    merge_study: MergeStudy,
    trials: int,
    *,
    no_better_in: int | None = None,
    timeout: float | None = None,
    grace: float = 0.0,
    on_trial: OnTrial = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Runs trials until the study has `trials` finished ones in all, or has converged, or `timeout`
    seconds passed.

    Any number of processes may do so at once. Ctrl-C stops this one at once: its running trial is
    marked failed and queued again, as is that of a worker that died.

    Args:
        trials: how many finished trials the study is to have, whoever ran them.
        no_better_in: trials without a better one by which it has converged; None: it never has.
        grace: seconds that the running trial has to finish after SIGTERM.
        on_trial: called with each finished trial, and all trials as they were when it was taken.
        say: called with a line on what the run keeps in memory, and what it waits for.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM.
        EvomergeError: the database or the machine failed, or every candidate fails alike; finished
            trials are kept.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    url, rdb = merge_study.store.url, merge_study.store.rdb
    with database_errors(url), working(merge_study) as worker:
        try:
            with patience(url, rdb, say), grace_period(grace) as told_to_stop:
                for prepare in (identify, _check_foreign_trials):
                    call = partial(following, merge_study, partial(prepare, merge_study))
                    persistently(rdb, call, say)
                objective = Objective(merge_study, say)

                def is_over() -> bool:
                    return told_to_stop() or time.monotonic() >= deadline

                load = partial(_load, objective)
                at_once = objective.at_once
                take = partial(
                    worker.next_trials, trials, load, no_better_in, is_over, say, at_once
                )
                take = partial(following, merge_study, take)
                left: list[Taken] = []  # of those taken together; cleared, they are queued again
                lost = 0  # trials in a row
                while left or (left := _asked(objective, persistently(rdb, take, say))):
                    taken = left.pop(0)
                    try:
                        finished = _run_trial(merge_study, objective, taken)
                    except optuna.exceptions.UpdateFinishedTrialError:
                        continue  # taken for dead, and given to another worker
                    except KeyError:
                        if not follow(merge_study):
                            raise
                        left.clear()
                        continue  # its copy is repeated
                    except database_failures() as error:
                        left.clear()
                        if not is_lost_connection(error):
                            if not follow(merge_study):
                                raise
                            continue  # it was renamed between reading a row and changing it
                        lost += 1
                        if lost > ATTEMPTS:
                            raise
                        wait_for_proxy(rdb, say)
                        continue  # queued again with the next trial that is taken
                    lost = 0
                    tell_of = partial(on_trial, finished, taken.before)
                    persistently(rdb, partial(following, merge_study, tell_of), say)
                if told_to_stop():
                    raise Interrupted("stopped")
        except KeyboardInterrupt:
            with _interrupts_ignored():
                give_back = partial(worker.requeue_own, "its worker was told to stop")
                following(merge_study, give_back)
            raise Interrupted("stopped") from None
        except Exception:
            # Where the database itself is gone, another worker or the next run does it.
            with suppress(Exception):
                give_back = partial(worker.requeue_own, "its worker could not go on")
                following(merge_study, give_back)
            raise


def _check_foreign_trials(merge_study: MergeStudy) -> None:
    trials, parameters = merge_study.read(), distributions(merge_study.space)
    added = (trial for trial in trials.everything if trial.number in trials.foreign)
    require_same_kinds(added, parameters, merge_study.name)


def _load(objective: Objective) -> None:
    try:
        objective.load()
    except CandidateError:
        pass  # may be the baseline's fault alone; of each other a trial tells
    except EvomergeError:
        raise
    except OSError as error:
        raise EvomergeError(_about_the_machine(error)) from error
    except Exception:
        pass  # a trial meets it again, and tells of it


def _asked(objective: Objective, batch: list[Taken]) -> list[Taken]:
    """The trials, whose candidates have been asked at once if they are several."""
    objective.ask_ahead(batch)
    return batch


def _run_trial(merge_study: MergeStudy, objective: Objective, taken: Taken) -> FrozenTrial:
    study, trial = merge_study.study, taken.trial
    try:
        values = objective(trial, taken.before)
    except NotFiniteError as error:
        return _fail(study, trial, str(error))
    except CandidateError as error:
        return _fail_or_give_up(merge_study, trial, str(error))
    except (EvomergeError, optuna.exceptions.UpdateFinishedTrialError):
        raise  # not the candidate's fault: the trial is repeated
    except database_failures():
        raise
    except OSError as error:
        raise EvomergeError(_about_the_machine(error)) from error
    except Exception as error:
        # Whatever a candidate does (out of memory, an exception in its layers), the study goes on.
        return _fail_or_give_up(merge_study, trial, kind_and_message(error, _LONGEST))
    return _tell(study, trial, values)


def _tell(study: optuna.Study, trial: optuna.Trial, values: list[float] | None) -> FrozenTrial:
    """Finishes the trial; without values as failed.

    Raises:
        UpdateFinishedTrialError: another worker has, since the last attribute was stored.
    """
    try:
        return study.tell(trial, values, state=TrialState.FAIL if values is None else None)
    except ValueError as error:
        if is_finished(study, trial):
            raise optuna.exceptions.UpdateFinishedTrialError(str(error)) from error
        raise


def _fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> FrozenTrial:
    trial.set_user_attr(ERROR, reason)
    return _tell(study, trial, None)


def _fail_or_give_up(merge_study: MergeStudy, trial: optuna.Trial, reason: str) -> FrozenTrial:
    """Fails the trial; where the last ones all failed alike, queues them again and stops."""
    failed = _fail(merge_study.study, trial, reason)
    last = [t for t in merge_study.trials() if t.state.is_finished()][-ALIKE:]
    if len(last) == ALIKE and all(t.user_attrs.get(ERROR) == reason for t in last):
        with hold(merge_study.store.locks, merge_study.name):
            requeue(merge_study, last, anew=True)
        raise EvomergeError(
            f"the last {ALIKE} candidates all failed alike: {reason}; it is not the recipes' "
            "fault: correct the cause and run again, these trials will be repeated"
        )
    return failed


def _about_the_machine(error: OSError) -> str:
    place = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}: no space left; free some and run again: every finished trial is kept"
    return f"{place}: {error.strerror or error}"


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """A second Ctrl-C does not tear what the first one is tidying up."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
