"""A study as `study run` runs it: in this process or in several, its page kept current."""

import math
import time
from collections.abc import Callable
from functools import partial

from optuna.trial import FrozenTrial

from evomerge_optuna.evaluation.user_code import allow, allowed
from evomerge_optuna.quiet import be_quiet, is_quiet
from evomerge_optuna.report.dashboard import PageUpdates, describe_trial
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.processes import run_processes
from evomerge_optuna.store.faults import patience, persistently
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.renamed import following, identify, open_identified
from evomerge_optuna.study.result import RESULT, result_of
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

Say = Callable[[str], None]


def run_here(
    merge_study: MergeStudy,
    trials: int,
    *,
    timeout: float | None,
    grace: float,
    show: Callable[[], None],
    say: Say,
) -> None:
    """Runs the study in this process; see `run_trials`.

    Args:
        show: called after each trial, and at the end.
    """
    page = PageUpdates(merge_study)
    told = False

    def finished(trial: FrozenTrial, before: Trials) -> None:
        nonlocal told
        describe_trial(merge_study, trial, before)
        page.update()
        show()
        if not told and (line := pace(trial, trials - merge_study.finished())):
            told = True
            say(line)

    run_trials(merge_study, trials, timeout=timeout, grace=grace, on_trial=finished, say=say)
    following(merge_study, show)  # the last ones may have been others'


def pace(trial: FrozenTrial, left: int) -> str:
    """What a run's first scored trial says of how long the others take; empty for any other."""
    seconds = sum(result_of(trial).seconds.values()) if RESULT in trial.user_attrs else 0.0
    if not seconds or left < 1:
        return ""
    minutes = math.ceil(seconds * left / 60)
    about = f"{minutes:,} minutes" if minutes > 1 else "a minute"
    return f"the first trial took {seconds:.1f} s; {left} more take up to {about}"


def run_with_workers(
    merge_study: MergeStudy,
    trials: int,
    *,
    workers: int,
    timeout: float | None,
    grace: float,
    show: Callable[[], None],
    say: Say,
) -> None:
    """Runs the study in so many processes, which share this machine; see `run_trials`.

    Args:
        show: called every second.
    """
    page = PageUpdates(merge_study)
    work = partial(
        _work,
        url=merge_study.store.url.render_as_string(hide_password=False),
        study=merge_study.name,
        identity=identify(merge_study),
        workers=workers,
        trials=trials,
        deadline=None if timeout is None else time.monotonic() + timeout,
        grace=grace,
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
        run_processes(work, workers, partial(persistently, store.rdb, progress_now, say), say)
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
        timeout=None if deadline is None else max(0.0, deadline - time.monotonic()),
        grace=grace,
        on_trial=partial(describe_trial, merge_study),
        say=say,
    )
