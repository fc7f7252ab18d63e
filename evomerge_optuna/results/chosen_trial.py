"""Which trial is a study's result: dev decides a race of the best few on search."""

import math
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from evomerge_optuna.errors import UsageError
from evomerge_optuna.results.final_scores import model_of_trial, stored_quarters, stored_scores
from evomerge_optuna.results.finalists import Finalist, Standing, standing
from evomerge_optuna.study.quarters import Part
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, recipe_of

FINALISTS = 8  # trials among which dev decides for a single objective
_BEFORE = 5  # in earlier versions, each scored on the whole of dev


def finalists(merge_study: MergeStudy) -> list[FrozenTrial]:
    """The trials of which dev chooses one, ranked: the Pareto front, or the best of one objective.

    A recipe that several trials have is a finalist once.
    """
    if len(merge_study.spec.objectives) > 1:
        return merge_study.front()
    found: dict[str, FrozenTrial] = {}
    for trial in merge_study.ranked():
        found.setdefault(recipe_of(trial).digest(), trial)
        if len(found) == FINALISTS:
            break
    return list(found.values())


def chosen_trial(merge_study: MergeStudy) -> FrozenTrial | None:
    """The study's result as far as it is known; None where no trial is scored.

    That is the finalist which wins the race in the first objective, once it is over, and the best
    on search until then, or where there is no dev split.
    """
    return _winner(merge_study) or merge_study.best()


def find_trial(merge_study: MergeStudy, which: str) -> FrozenTrial:
    """A trial by its number, the knee of the Pareto front, or the best, which is `chosen_trial`.

    Raises:
        UsageError: there is no such scored trial, or dev has not decided yet among a front of
            several objectives.
    """
    if which in ("best", "knee"):
        chosen = chosen_trial(merge_study)
        if chosen is None:
            raise UsageError(f"study '{merge_study.name}' has no scored trial yet; run it first")
        if which == "knee":
            return knee(merge_study, merge_study.front())
        if len(merge_study.spec.objectives) > 1:
            _require_dev_scores(merge_study)
        return chosen
    if not which.isascii() or not which.isdigit():
        raise UsageError(f"--trial takes a trial's number, 'best' or 'knee', not '{which}'")
    trials = merge_study.read()
    found = [t for t in trials.everything if t.number == int(which)]
    if found and found[0].number in trials.foreign:
        raise UsageError(
            f"trial {which} of study '{merge_study.name}' is foreign: it was added by something "
            "else, and has no recipe or no scores of this study's tasks"
        )
    if not found:
        raise UsageError(f"study '{merge_study.name}' has no trial {which}")
    if not found[0].state.is_finished() or found[0].values is None:
        raise UsageError(f"trial {which} of study '{merge_study.name}' has no score")
    return found[0]


def race(merge_study: MergeStudy, found: Sequence[FrozenTrial]) -> Standing:
    """How far the race of these finalists is.

    Args:
        found: one or more, ranked.
    """
    return standing([_finalist(merge_study, trial) for trial in found])


def is_race_open(merge_study: MergeStudy) -> bool:
    """Is there anything left that dev has to decide? `FinalScorer.score_finalists` does it."""
    return _is_for_dev(merge_study) and _winner(merge_study) is None


def is_chosen_on_dev(merge_study: MergeStudy) -> bool:
    """Did dev decide which trial is the study's `chosen_trial`?"""
    return _winner(merge_study) is not None


def _is_for_dev(merge_study: MergeStudy) -> bool:
    return merge_study.spec.has_dev and len(finalists(merge_study)) > 1


def _winner(merge_study: MergeStudy) -> FrozenTrial | None:
    if not _is_for_dev(merge_study):
        return None
    found = finalists(merge_study)
    place = race(merge_study, found).winner
    return _winner_of_before(merge_study, found) if place is None else found[place]


def _winner_of_before(merge_study: MergeStudy, found: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The choice of an earlier version, which scored the best few on dev and looked at that."""
    if len(merge_study.spec.objectives) == 1:
        found = found[:_BEFORE]
    gains = []
    for trial in found:
        entry = model_of_trial(trial)
        scores = stored_scores(merge_study, entry).get("dev")
        if scores is None or stored_quarters(merge_study, entry):
            return None
        gains.append(_gain(merge_study, scores[merge_study.spec.objective.target].value))
    return found[gains.index(max(gains))]


def _finalist(merge_study: MergeStudy, trial: FrozenTrial) -> Finalist:
    search = result_of(trial).scores[merge_study.spec.objective.target]
    quarters = stored_quarters(merge_study, model_of_trial(trial))

    def part(value: float, n: float) -> Part:
        return _gain(merge_study, value), n

    return Finalist(part(search.value, search.n), tuple(part(*quarter) for quarter in quarters))


def _gain(merge_study: MergeStudy, value: float) -> float:
    """More is better; a perplexity by its logarithm, which is a mean over texts."""
    objective = merge_study.spec.objective
    if merge_study.spec.metric(objective.target).kind == "perplexity":
        value = math.log(value) if value > 0 else math.nan
    return objective.sign * value if math.isfinite(value) else -math.inf


def _require_dev_scores(merge_study: MergeStudy) -> None:
    if is_race_open(merge_study):
        raise UsageError(
            f"study '{merge_study.name}' has a front of {len(merge_study.front())} trials, among "
            f"which dev has not decided; run study test {merge_study.quoted_name}, or name one "
            "with --trial"
        )


def knee(merge_study: MergeStudy, front: Sequence[FrozenTrial]) -> FrozenTrial:
    """The trial of a front that lies farthest from the plane through the front's extremes.

    With every objective scaled to 0..1 over the front, that is the one whose sum of gains is
    largest (Das 1999, normal-boundary intersection); of equals the first.

    Args:
        front: one trial or more, ranked.
    """
    signs = [objective.sign for objective in merge_study.spec.objectives]
    gains = np.array(signs) * np.array([trial.values for trial in front])
    low, span = gains.min(axis=0), np.ptp(gains, axis=0)
    scaled = (gains - low) / np.where(span > 0, span, 1)
    return front[int(scaled.sum(axis=1).argmax())]
