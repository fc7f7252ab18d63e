"""The loop that runs trials until a study has as many as wanted."""

import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import CandidateError, EvomergeError, NotFiniteError
from evomerge_optuna.study.lock import hold
from evomerge_optuna.study.objective import Objective
from evomerge_optuna.study.requeue import position, requeue, requeue_running
from evomerge_optuna.study.samplers import make_sampler
from evomerge_optuna.study.storage import database_errors
from evomerge_optuna.study.studies import ERROR, MergeStudy

OnTrial = Callable[[FrozenTrial], None]

# So many candidates in a row that fail alike say that something else is wrong.
ALIKE = 5

# What stops the run instead of failing the trial, which is then repeated by the next run.
_NOT_THE_CANDIDATES_FAULT = (
    EvomergeError,
    optuna.exceptions.StorageInternalError,
    sqlalchemy.exc.SQLAlchemyError,
)


class Interrupted(EvomergeError):
    """The run was told to stop; the trial it was in is queued again."""

    exit_code = 130


def run_study(
    merge_study: MergeStudy,
    trials: int,
    *,
    timeout: float | None = None,
    on_trial: OnTrial = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Runs trials until the study has `trials` finished ones in all, or `timeout` seconds passed.

    Ctrl-C stops it at once: the running trial is marked failed and queued again. What an earlier
    run left running when it was killed is queued again first.

    Args:
        trials: the total wanted, with those of earlier runs.
        on_trial: called with each finished trial.
        say: told in a line what the run keeps in memory.

    Raises:
        Interrupted: by Ctrl-C.
        StudyBusyError: another process runs the study.
        EvomergeError: the database or the machine failed, or every candidate fails alike; finished
            trials are kept.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with database_errors(merge_study.store.url), hold(merge_study.store, merge_study.name):
        requeue_running(merge_study, "its worker died")
        try:
            objective = Objective(merge_study, say)
            while merge_study.finished() < trials:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                on_trial(_run_trial(merge_study, objective))
        except KeyboardInterrupt:
            with _interrupts_ignored():
                requeue_running(merge_study, "its worker was told to stop")
            raise Interrupted("stopped") from None
        except Exception:
            # Where the database itself is gone, the next run does it.
            with suppress(Exception):
                requeue_running(merge_study, "its worker could not go on")
            raise


def _run_trial(merge_study: MergeStudy, objective: Objective) -> FrozenTrial:
    study = merge_study.study
    trial = study.ask()
    # Set after ask(), which gives the number; the sampler is first asked by suggest_float.
    place = position(merge_study, trial.number)
    study.sampler = make_sampler(merge_study.spec.sampler, place, merge_study.start())
    try:
        values = objective(trial)
    except NotFiniteError as error:
        return _fail(study, trial, str(error))
    except CandidateError as error:
        return _fail_or_give_up(merge_study, trial, str(error))
    except _NOT_THE_CANDIDATES_FAULT:
        raise
    except OSError as error:
        raise EvomergeError(_about_the_machine(error)) from error
    except Exception as error:
        # Whatever a candidate does (out of memory, an exception in its layers), the study goes on.
        return _fail_or_give_up(merge_study, trial, _one_line(error))
    return study.tell(trial, values)


def _fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> FrozenTrial:
    trial.set_user_attr(ERROR, reason)
    return study.tell(trial, state=TrialState.FAIL)


def _fail_or_give_up(merge_study: MergeStudy, trial: optuna.Trial, reason: str) -> FrozenTrial:
    """Fails the trial; where the last ones all failed alike, queues them again and stops."""
    failed = _fail(merge_study.study, trial, reason)
    last = [t for t in merge_study.trials() if t.state.is_finished()][-ALIKE:]
    if len(last) == ALIKE and all(t.user_attrs.get(ERROR) == reason for t in last):
        requeue(merge_study, last)
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


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


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
