"""What a study searches for: its objectives and its constraints."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_serializer, model_validator

from evomerge_optuna.spec.part import Number, Strict

# What a model costs to run; the recipe alone gives it.
COSTS = ("layers", "parameters", "flops_per_token")


class Objective(Strict):
    """A measure to maximize or to minimize: `TASK.METRIC`, or a cost of the model."""

    maximize: str | None = None
    """The measure to maximize, `TASK.METRIC`."""
    minimize: str | None = None
    """The measure to minimize: `TASK.METRIC`, or for a stack `layers`, `parameters` or
    `flops_per_token`."""

    @model_validator(mode="after")
    def _one_direction(self) -> "Objective":
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("write {maximize: TASK.METRIC} or {minimize: TASK.METRIC}")
        return self

    @property
    def target(self) -> str:
        """`TASK.METRIC`, or the name of a cost."""
        return self.maximize or self.minimize or ""

    @property
    def task(self) -> str:
        """The name of the measure's task; a cost has none, and gives its own name."""
        return self.target.partition(".")[0]

    @property
    def is_cost(self) -> bool:
        return self.target in COSTS

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.maximize is not None else "minimize"

    @property
    def sign(self) -> int:
        """What a value is multiplied by so that more is better."""
        return 1 if self.maximize is not None else -1


class Constraint(Strict):
    """A bound on a measure, for example `math.accuracy >= 0.5` or `layers <= 8`."""

    target: str
    """The measure: `TASK.METRIC`, or a cost."""
    relation: Literal[">=", "<="]
    """The side of the bound on which the measure must be."""
    bound: Annotated[Number, Field(allow_inf_nan=False)]
    """The bound. The measure may equal it."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = re.fullmatch(r"\s*(\S+)\s*(>=|<=)\s*([-+0-9.e]+)\s*", value)
        try:
            target, relation, bound = parts.groups() if parts else ("", "", "")
            return {"target": target, "relation": relation, "bound": float(bound)}
        except ValueError as error:
            raise ValueError("write TASK.METRIC >= NUMBER or TASK.METRIC <= NUMBER") from error

    @model_serializer
    def __str__(self) -> str:
        return f"{self.target} {self.relation} {repr(self.bound).removesuffix('.0')}"

    def violation(self, value: float) -> float:
        """How far a value is beyond the bound; 0 or less where the constraint is kept."""
        return self.bound - value if self.relation == ">=" else value - self.bound
