"""A study that another process runs, watched in its database: nothing of it is written."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial

from optuna.trial import TrialState

from evomerge_optuna.report.numbers import show_seconds
from evomerge_optuna.report.outcome import outcome_line, run_command
from evomerge_optuna.results.convergence import convergence_remark
from evomerge_optuna.results.pace import pace_of
from evomerge_optuna.study.renamed import following
from evomerge_optuna.study.schema import SPEC
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

EVERY = 2.0  # seconds
_LONG = 10  # times the usual trial, after which its worker may be dead

Show = Callable[[str, Trials, int], None]


def watch(
    merge_study: MergeStudy,
    show: Show,
    say: Callable[[str], None],
    wait: Callable[[], None] = lambda: time.sleep(EVERY),
) -> str:
    """Shows how a study stands, again and again, until it has ended.

    Args:
        show: is given the study's name, its trials and how many are wanted.
        say: is given each remark once.
        wait: called between two looks.

    Returns:
        What came of the study, in a line or two.

    Raises:
        EvomergeError: the study was deleted.
    """
    said: set[str] = set()
    rested = 0  # looks in a row at which no trial was running, which is so between two of them
    while True:
        trials = following(merge_study, merge_study.read)
        wanted = following(merge_study, partial(_wanted, merge_study))
        show(merge_study.name, trials, wanted)
        rested = 0 if trials.of(TrialState.RUNNING) else rested + 1
        stop = merge_study.spec.stop
        converged = trials.have_converged(None if stop is None else stop.no_better_in)
        if rested > 1 and (trials.finished >= wanted or converged):
            command = run_command(merge_study)
            why = "stop.no_better_in" if converged else ""
            last = outcome_line(merge_study.name, trials, wanted, command, converged=why)
            return "\n".join(filter(None, [last, convergence_remark(merge_study, trials)]))
        for about, remark in _remarks(merge_study, trials, rested):
            if about not in said:
                say(remark)
            said.add(about)
        if not rested:
            said.discard("rest")
        wait()


def _wanted(merge_study: MergeStudy) -> int:
    """Trials in all, which a run may have changed meanwhile."""
    return int(merge_study.attributes()[SPEC]["trials"])


def _remarks(merge_study: MergeStudy, trials: Trials, rested: int) -> Iterator[tuple[str, str]]:
    """What is worth a line of its own, with what it is about."""
    if remark := convergence_remark(merge_study, trials):
        yield "convergence", remark
    if rested > 1:
        command = run_command(merge_study)
        yield "rest", f"no trial of {merge_study.name} is running now; it is run by: {command}"
    pace, now = pace_of(trials.counted), datetime.now()
    for trial in trials.of(TrialState.RUNNING) if pace else ():
        assert pace is not None and trial.datetime_start is not None
        seconds = (now - trial.datetime_start).total_seconds()
        if seconds > max(60.0, _LONG * pace.seconds):
            yield (
                f"trial {trial.number}",
                f"trial {trial.number} has been running for {show_seconds(seconds)}, and others "
                f"took {show_seconds(pace.seconds)}: is its worker alive?",
            )
