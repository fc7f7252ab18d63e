"""The loop that runs trials until a study has as many as wanted."""

import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import optuna
import sqlalchemy.exc
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.study.objective import Objective
from evomerge_optuna.study.samplers import make_sampler
from evomerge_optuna.study.storage import database_errors
from evomerge_optuna.study.studies import ERROR, MergeStudy
from evomerge_optuna.study.worker import claim, position, requeue_abandoned, requeue_own

OnTrial = Callable[[FrozenTrial], None]

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
) -> None:
    """Runs trials until the study has `trials` finished ones in all, or `timeout` seconds passed.

    Ctrl-C and SIGTERM stop it at once: the running trial is marked failed and queued again.

    Args:
        trials: the total wanted, with those of earlier runs.
        on_trial: called with each finished trial.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM.
        StorageError: the database failed; finished trials are kept.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    with database_errors(merge_study.store.url), _sigterm_as_interrupt():
        try:
            requeue_abandoned(merge_study)
            objective = Objective(merge_study)
            while merge_study.finished() < trials:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                on_trial(_run_trial(merge_study, objective))
        except KeyboardInterrupt:
            with _signals_ignored():
                requeue_own(merge_study)
            raise Interrupted("stopped") from None
        except Exception:
            # Where the database itself is gone, the next run finds this worker dead.
            with suppress(Exception):
                requeue_own(merge_study)
            raise


def _run_trial(merge_study: MergeStudy, objective: Objective) -> FrozenTrial:
    study = merge_study.study
    trial = study.ask()
    claim(trial)
    # Set after ask(), which gives the number; the sampler is first asked by suggest_float.
    study.sampler = make_sampler(merge_study.spec.sampler, position(merge_study, trial.number))
    try:
        value = objective(trial)
    except CandidateError as error:
        return _fail(study, trial, str(error))
    except _NOT_THE_CANDIDATES_FAULT:
        raise
    except OSError as error:
        raise EvomergeError(_about_the_machine(error)) from error
    except Exception as error:
        # Whatever a candidate does (out of memory, an exception in its layers), the study goes on.
        return _fail(study, trial, _one_line(error))
    return study.tell(trial, value)


def _fail(study: optuna.Study, trial: optuna.Trial, reason: str) -> FrozenTrial:
    trial.set_user_attr(ERROR, reason)
    return study.tell(trial, state=TrialState.FAIL)


def _about_the_machine(error: OSError) -> str:
    place = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}: no space left; free some and run again: every finished trial is kept"
    return f"{place}: {error.strerror or error}"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """A second Ctrl-C does not tear what the first one is tidying up."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)
