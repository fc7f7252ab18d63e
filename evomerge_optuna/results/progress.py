"""How a study came to its best value."""

from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import is_feasible


@dataclass(frozen=True)
class Progress:
    """The best value of the first objective after each scored trial.

    `trials` counts finished trials, `seconds` the time in which at least one was running, so that
    pauses between two runs do not count.
    """

    trials: tuple[int, ...]
    seconds: tuple[float, ...]
    best: tuple[float, ...]


def progress_of(merge_study: MergeStudy) -> Progress:
    """The progress of a study; baselines are part of it."""
    done = [t for t in merge_study.trials() if t.datetime_start and t.datetime_complete]
    done.sort(key=_completion)
    sign = merge_study.spec.objective.sign
    trials: list[int] = []
    seconds: list[float] = []
    best: list[float] = []
    worked, until = 0.0, 0.0
    for count, trial in enumerate(done, start=1):
        assert trial.datetime_start is not None
        begin, end = trial.datetime_start.timestamp(), _completion(trial)
        worked += max(0.0, end - max(begin, until))
        until = max(until, end)
        if trial.state is TrialState.COMPLETE and is_feasible(trial):
            value = sign * trial.values[0]
            best.append(max(value, *best[-1:]) if best else value)
            trials.append(count)
            seconds.append(worked)
    return Progress(tuple(trials), tuple(seconds), tuple(sign * value for value in best))


def _completion(trial: FrozenTrial) -> float:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()
