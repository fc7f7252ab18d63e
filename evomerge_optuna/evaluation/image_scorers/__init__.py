"""What judges pictures, a module for each type of scorer.

A new one is a class of `spec.images` (its keys, and what kind of number it gives), and a module
here that is named as its `type` and gives its `SCORER`.
"""

from importlib import import_module
from typing import Any

from evomerge_optuna.evaluation.image_scorers.base import Drawn, PictureScorer
from evomerge_optuna.spec.images import HumanScorer, ImageTask, MeanScorer

__all__ = ["Drawn", "PictureScorer", "picture_scorers"]


def picture_scorers(task: ImageTask, key: str) -> dict[str, PictureScorer[Any]]:
    """What judges single pictures in a task, by the scorers' names.

    Args:
        key: of the task in the spec.
    """
    found = {}
    for name, scorer in task.scorers.items():
        if not isinstance(scorer, MeanScorer | HumanScorer):
            made = import_module(f"{__name__}.{scorer.type}").SCORER
            found[name] = made(scorer, f"{key}.scorers.{name}", task.device)
    return found
