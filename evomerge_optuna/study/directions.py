"""Objectives that ask for the worse side of a metric: allowed, and said when a study is made."""

from collections.abc import Iterator

from evomerge_optuna.evaluation.tasks import Tasks
from evomerge_optuna.spec import StudySpec


def unusual_directions(spec: StudySpec, tasks: Tasks) -> Iterator[str]:
    """A line for each objective whose direction is not the one that is better for its metric."""
    for objective in spec.objectives:
        metric = spec.metric(objective.target)
        better = metric.better if objective.is_cost else tasks[objective.task].better(metric)
        wanted = {"high": "maximize", "low": "minimize", None: objective.direction}[better]
        if wanted != objective.direction:
            yield (
                f"Warning: the study is to {objective.direction} {objective.target}, of which "
                f"{better} values are better; write {wanted}: {objective.target} for better models"
            )
