"""How a running study stands, in one line: `study run` and `study watch` show it."""

from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.report.numbers import show_seconds
from evomerge_optuna.report.outcome import best_so_far
from evomerge_optuna.results.pace import pace_of
from evomerge_optuna.study.schema import BASELINE, ERROR
from evomerge_optuna.study.trials import Trials


def standing_line(trials: Trials, wanted: int) -> str:
    """How fast it goes, what is left, the best beside the best baselines, and how many failed.

    Args:
        wanted: trials in all.
    """
    parts = [_pace(trials, wanted), best_so_far(trials) + _baselines(trials), _failed(trials)]
    return "; ".join(part for part in parts if part)


def counted_line(study: str, trials: Trials, wanted: int) -> str:
    """The same after the study's name and how far it is: a line on its own.

    Args:
        study: its name.
    """
    return f"{study}: {trials.finished}/{wanted} trials; {standing_line(trials, wanted)}"


def _pace(trials: Trials, wanted: int) -> str:
    pace = pace_of(trials.counted)
    if pace is None:
        return ""
    several = f", {pace.at_once} at once" if pace.at_once > 1 else ""
    said = f"{show_seconds(pace.seconds)} a trial{several}"
    left = wanted - trials.finished
    return said if left < 1 else f"{said}, about {show_seconds(pace.left(left))} left"


def _baselines(trials: Trials) -> str:
    """The best of what the study began with, and the first of it; but for the best of all."""
    best = trials.best
    given = [t for t in trials.ranked if BASELINE in t.user_attrs and t is not best]
    if best is None or not given:
        return ""
    shown = dict.fromkeys(_scored(t) for t in (given[0], min(given, key=lambda t: t.number)))
    return f", beside {' and '.join(shown)}"


def _scored(trial: FrozenTrial) -> str:
    return f"{trial.values[0]:.4g} ({trial.user_attrs[BASELINE]})"


def _failed(trials: Trials) -> str:
    failed = sum(t.state is TrialState.FAIL and ERROR in t.user_attrs for t in trials.counted)
    return (
        f"{failed} of {trials.finished} failed ({failed / trials.finished:.0%})" if failed else ""
    )
