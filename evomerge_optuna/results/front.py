"""Which trial of a Pareto front to take."""

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial

from evomerge_optuna.study.studies import MergeStudy


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
