"""What was found of a trial's model: one attribute of the trial, for each is a transaction."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.study.quarters import Part
from evomerge_optuna.study.schema import RESULT

Scores = dict[str, Score]  # by metric: task.name


@dataclass(frozen=True)
class Result:
    """A scored model: what it is, its scores on search, its costs, where the time went.

    Attributes:
        recipe: the recipe's digest.
        sha256: of all its tensors.
        threads: that computed it: sums round by how they are divided, and so the digest.
        costs: layers, parameters, operations a token.
        seconds: by part of the trial.
        dev: its scores on dev, if it was the best when it ended.
        dev_quarters: the first objective's on each quarter of dev, likewise.
    """

    recipe: str
    sha256: str
    threads: int
    scores: Scores
    costs: dict[str, float]
    seconds: dict[str, float]
    dev: Scores | None = None
    dev_quarters: list[Part] = field(default_factory=list)

    @property
    def measures(self) -> dict[str, float]:
        """What objectives and constraints are about, by target."""
        return {**self.costs, **{metric: score.value for metric, score in self.scores.items()}}


def store_result(trial: optuna.Trial, result: Result) -> None:
    """Records it with a running trial."""
    trial.set_user_attr(RESULT, asdict(result))


def result_of(trial: FrozenTrial | optuna.Trial) -> Result:
    """The result of a trial that was scored."""
    stored: dict[str, Any] = trial.user_attrs[RESULT]
    dev = stored["dev"]
    scores = {"scores": as_scores(stored["scores"]), "dev": None if dev is None else as_scores(dev)}
    return Result(**{**stored, **scores})


def as_scores(stored: dict[str, dict[str, Any]]) -> Scores:
    """Scores as an attribute of a trial or study has them."""
    return {metric: Score(**score) for metric, score in stored.items()}


def as_scored(trial: FrozenTrial) -> AbstractContextManager[None]:
    """Within the block a recipe gives the tensors that the trial was scored with, bit for bit."""
    from evomerge_optuna.machine import threads

    return threads(result_of(trial).threads)
