"""Trials that somebody else added to a study, by Optuna's `add_trial` or `tell`.

They have no recipe, or no scores of this study's tasks: nothing here can use them. They stay in the
database and in the dashboard, and count for nothing. A trial that somebody enqueued is run like any
other.
"""

from collections.abc import Collection, Iterable, Mapping

from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.spec import Dimension
from evomerge_optuna.store.optuna_internals import ENQUEUED
from evomerge_optuna.study.schema import BASELINE, INTERRUPTED, RECIPE, REPEATS, RESULT, WORKER

_OURS = {WORKER, RECIPE, REPEATS, BASELINE, INTERRUPTED}  # a failed trial of ours has one at least


def is_foreign(trial: FrozenTrial, parameters: Collection[str], targets: Collection[str]) -> bool:
    """Was a trial added to its study by something else than this program?

    Args:
        parameters: of the search space.
        targets: of the study's objectives.
    """
    match trial.state:
        case TrialState.COMPLETE:
            return not (
                RECIPE in trial.user_attrs
                and _has_measures(trial.user_attrs.get(RESULT), targets)
                and len(trial.values) == len(targets)
                and trial.params.keys() == set(parameters)
            )
        case TrialState.FAIL:
            return _OURS.isdisjoint(trial.user_attrs)
        case TrialState.PRUNED:
            return True  # trials that were stopped early are complete
    return False


def check_enqueued(trial: FrozenTrial, ranges: Mapping[str, Dimension]) -> None:
    """Refuses parameters that somebody enqueued outside of their ranges.

    Raises:
        CandidateError: naming the first one.
    """
    if not _OURS.isdisjoint(trial.user_attrs):
        return
    for name, value in trial.system_attrs.get(ENQUEUED, {}).items():
        if (found := ranges.get(name)) is not None and not found.has(value):
            raise CandidateError(f"it was enqueued with {name} = {value!r}, which is no {found}")


def require_same_kinds(
    trials: Iterable[FrozenTrial], parameters: Mapping[str, BaseDistribution], study: str
) -> None:
    """Refuses foreign trials beside which Optuna would store none of ours.

    Args:
        parameters: of the search space, with what they are drawn from.

    Raises:
        EvomergeError: one has a parameter of the study as another kind of value.
    """
    for trial in trials:
        for name in trial.distributions.keys() & parameters.keys():
            theirs, ours = trial.distributions[name], parameters[name]
            try:
                check_distribution_compatibility(theirs, ours)
            except ValueError as error:
                raise EvomergeError(
                    f"foreign trial {trial.number} of study '{study}': its parameter {name} is of "
                    "another kind, and Optuna stores one kind of a parameter alone; begin a new "
                    "study, for Optuna deletes no trial"
                ) from error


def _has_measures(result: object, targets: Collection[str]) -> bool:
    if not isinstance(result, dict):
        return False
    measures = [result.get(kind) for kind in ("scores", "costs")]
    return all(any(isinstance(m, dict) and t in m for m in measures) for t in targets)


def named(numbers: Collection[int]) -> str:
    """What is said of them; empty where there are none."""
    if not numbers:
        return ""
    of_others = ", ".join(map(str, sorted(numbers)))
    return (
        f"foreign trials, added by something else and used for nothing here: {of_others}; "
        "to have parameters tried, use enqueue_trial"
    )
