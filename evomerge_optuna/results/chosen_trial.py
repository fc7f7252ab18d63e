"""Which trial is a study's result: dev chooses among the best few on search."""

import math
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.results.final_scores import model_of_trial, stored_scores
from evomerge_optuna.study.studies import MergeStudy, recipe_of

FINALISTS = 5  # trials among which dev decides for a single objective


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

    That is the finalist which is best on dev in the first objective, once all are scored there,
    and the best on search until then, or where there is no dev split.
    """
    return _best_on_dev(merge_study) or merge_study.best()


def find_trial(merge_study: MergeStudy, which: str) -> FrozenTrial:
    """A trial by its number, the knee of the Pareto front, or the best, which is `chosen_trial`.

    Raises:
        UsageError: there is no such scored trial, or a front of several objectives has no dev
            scores yet.
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


def without_dev_score(merge_study: MergeStudy) -> list[FrozenTrial]:
    """The finalists that dev cannot decide on yet; `FinalScorer.score_finalists` scores them."""
    found = finalists(merge_study)
    if not merge_study.spec.has_dev or len(found) < 2:
        return []
    return [trial for trial in found if _on_dev(merge_study, trial) is None]


def is_chosen_on_dev(merge_study: MergeStudy) -> bool:
    """Did dev decide which trial is the study's `chosen_trial`?"""
    several = merge_study.spec.has_dev and len(finalists(merge_study)) > 1
    return several and not without_dev_score(merge_study)


def _best_on_dev(merge_study: MergeStudy) -> FrozenTrial | None:
    if not is_chosen_on_dev(merge_study):
        return None

    def gain(trial: FrozenTrial) -> float:
        score = _on_dev(merge_study, trial)
        if score is None or not math.isfinite(score.value):
            return -math.inf
        return merge_study.spec.objective.sign * score.value

    return max(finalists(merge_study), key=gain)


def _on_dev(merge_study: MergeStudy, trial: FrozenTrial) -> Score | None:
    scores = stored_scores(merge_study, model_of_trial(trial)).get("dev", {})
    return scores.get(merge_study.spec.objective.target)


def _require_dev_scores(merge_study: MergeStudy) -> None:
    if missing := without_dev_score(merge_study):
        raise UsageError(
            f"study '{merge_study.name}' has a front of {len(merge_study.front())} trials, of "
            f"which {len(missing)} have no dev score; run study test {merge_study.quoted_name}, "
            "or name one with --trial"
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
