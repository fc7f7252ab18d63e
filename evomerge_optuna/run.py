"""One run of a study, the same for the command line and for scripts."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from optuna.trial import FrozenTrial

from evomerge_optuna.errors import EvomergeError, Interrupted, UsageError
from evomerge_optuna.evaluation.user_code import allow, allowed
from evomerge_optuna.explain import counted
from evomerge_optuna.quiet import be_quiet, is_quiet
from evomerge_optuna.ready import ready_study
from evomerge_optuna.report.dashboard import PageUpdates, describe_study, describe_trial
from evomerge_optuna.report.outcome import outcome_line, run_command
from evomerge_optuna.results.convergence import convergence_remark
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.processes import run_processes
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.faults import patience, persistently
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.renamed import following, identify, open_identified
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import ERROR, RESULT
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

Say = Callable[[str], None]


def say_nothing(_: str) -> None:
    """For callers that want no lines."""


@contextmanager
def _no_progress(merge_study: MergeStudy, wanted: int) -> Iterator[Callable[[], None]]:
    yield lambda: None


@dataclass(frozen=True)
class Face:
    """How a run is shown to whoever began it. By default, nothing is shown.

    Attributes:
        say: prints one line.
        progress: shows how far the study is while its block runs; is given the study and the
            number of trials wanted, and yields a function that updates what is shown.
        command: the command that continues the study, for messages.
    """

    say: Say = say_nothing
    progress: Callable[[MergeStudy, int], AbstractContextManager[Callable[[], None]]] = _no_progress
    command: Callable[[MergeStudy], str] = run_command


@dataclass(frozen=True)
class Limits:
    """How much a run may do. Made before anything is opened, for it refuses what cannot be.

    Attributes:
        trials: the total wanted, with those already run; the spec's unless given.
        no_better_in: trials without a better one after which it stops; 0: it goes on; the spec's
            unless given.
        workers: processes on this machine.
        timeout: seconds, after which no further trial begins.
        grace: seconds that the running trials have to finish after SIGTERM.

    Raises:
        UsageError: one of them is too small.
    """

    trials: int | None = None
    workers: int = 1
    timeout: float | None = None
    grace: float = 0.0
    no_better_in: int | None = None

    def __post_init__(self) -> None:
        least = {"trials": 1, "workers": 1, "timeout": 0, "grace": 0, "no_better_in": 0}
        for name, given in vars(self).items():
            if given is not None and not given >= least[name]:  # NaN is not, either
                raise UsageError(f"{name}: should be {least[name]} or more, not {given}")

    def patience(self, spec: StudySpec) -> int | None:
        """Trials without a better one after which the study's run stops; None: it goes on."""
        if self.no_better_in is not None:
            return self.no_better_in or None
        return None if spec.stop is None else spec.stop.no_better_in

    @property
    def patience_from(self) -> str:
        """The option or the key of the spec that says it."""
        return "stop.no_better_in" if self.no_better_in is None else "--no-better-in"


def run_study(
    store: Store,
    study: StudySpec | str,
    limits: Limits,
    *,
    allow_code: bool = False,
    face: Face = Face(),
) -> MergeStudy:
    """Runs a study until it has as many finished trials as wanted, or has converged.

    Args:
        study: a spec, whose study is created unless it exists, or the name of a stored study.
        allow_code: run the code that a stored study's python tasks name.

    Returns:
        The study.

    Raises:
        UsageError: the spec or the name is wrong, or files have changed.
        Interrupted: by Ctrl-C or SIGTERM; every finished trial is kept.
        EvomergeError: the database or the machine failed, every candidate fails alike, or all
            wanted trials are done and none has a score.
    """
    opened = ready_study(store, study, face.say, allow_code)
    wanted = limits.trials or opened.spec.trials
    run = _run_here if limits.workers == 1 else _run_with_workers
    try:
        with face.progress(opened, wanted) as show:
            run(opened, wanted, limits, show, face.say)
    except Interrupted as error:
        finished = following(opened, opened.finished)
        raise Interrupted(
            f"the run was stopped after {counted(finished, 'trial')}; all are kept. "
            f"Continue with: {face.command(opened)}"
        ) from error
    following(opened, partial(describe_study, opened))
    ended = following(opened, opened.read)
    _require_a_score(opened.name, ended, wanted)
    converged = limits.patience_from if ended.have_converged(limits.patience(opened.spec)) else ""
    face.say(outcome_line(opened.name, ended, wanted, face.command(opened), converged=converged))
    if remark := convergence_remark(opened, ended):
        face.say(remark)
    return opened


def _require_a_score(name: str, trials: Trials, wanted: int) -> None:
    errors = [t.user_attrs[ERROR] for t in trials.counted if ERROR in t.user_attrs]
    if trials.finished >= wanted and len(errors) == trials.finished:
        raise EvomergeError(
            f"{name}: none of {trials.finished} candidates could be scored; "
            f"the last one failed with: {errors[-1]}"
        )


def _run_here(
    merge_study: MergeStudy, trials: int, limits: Limits, show: Callable[[], None], say: Say
) -> None:
    """Runs the study in this process; see `run_trials`.

    Args:
        show: called after each trial, and at the end.
    """
    page = PageUpdates(merge_study)
    has_said_pace = False

    def finished(trial: FrozenTrial, before: Trials) -> None:
        nonlocal has_said_pace
        describe_trial(merge_study, trial, before)
        page.update()
        show()
        if not has_said_pace and (line := pace(trial, trials - merge_study.finished())):
            has_said_pace = True
            say(line)

    run_trials(
        merge_study,
        trials,
        no_better_in=limits.patience(merge_study.spec),
        timeout=limits.timeout,
        grace=limits.grace,
        on_trial=finished,
        say=say,
    )
    following(merge_study, show)  # the last ones may have been others'


def pace(trial: FrozenTrial, left: int) -> str:
    """Says how long the remaining trials may take, from the first scored one; '' if it has none."""
    seconds = sum(result_of(trial).seconds.values()) if RESULT in trial.user_attrs else 0.0
    if not seconds or left < 1:
        return ""
    minutes = math.ceil(seconds * left / 60)
    about = f"{minutes:,} minutes" if minutes > 1 else "a minute"
    return f"the first trial took {seconds:.1f} s; {left} more take up to {about}"


def _run_with_workers(
    merge_study: MergeStudy, trials: int, limits: Limits, show: Callable[[], None], say: Say
) -> None:
    """Runs the study in several processes, which share this machine; see `run_trials`.

    Args:
        show: called every second.
    """
    page, timeout = PageUpdates(merge_study), limits.timeout
    work = partial(
        _work,
        url=merge_study.store.url.render_as_string(hide_password=False),
        study=merge_study.name,
        identity=identify(merge_study),
        workers=limits.workers,
        trials=trials,
        no_better_in=limits.patience(merge_study.spec),
        deadline=None if timeout is None else time.monotonic() + timeout,
        grace=limits.grace,
        functions=allowed(),
        quietly=is_quiet(),
    )

    def progress() -> int:
        page.update()
        show()
        return merge_study.finished()

    store = merge_study.store
    with patience(store.url, store.rdb, say):
        progress_now = partial(following, merge_study, progress)
        progress_now = partial(persistently, store.rdb, progress_now, say)
        run_processes(work, limits.workers, progress_now, say)
    following(merge_study, show)


def _work(
    number: int,
    say: Say,
    *,
    url: str,
    study: str,
    identity: str,
    workers: int,
    trials: int,
    no_better_in: int | None,
    deadline: float | None,
    grace: float,
    functions: tuple[str, ...],
    quietly: bool,
) -> None:
    """One worker process; its URL comes through a pipe, where no process list shows it."""
    from evomerge_optuna.machine import take_share  # imports torch

    if quietly:
        be_quiet()
    take_share(number, workers)
    allow(functions)
    merge_study = open_identified(open_store(url), study, identity)
    run_trials(
        merge_study,
        trials,
        no_better_in=no_better_in,
        timeout=None if deadline is None else max(0.0, deadline - time.monotonic()),
        grace=grace,
        on_trial=partial(describe_trial, merge_study),
        say=say,
    )
