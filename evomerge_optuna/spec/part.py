"""The base class of all parts of a spec, and the types of their values."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from evomerge_optuna.recipes.identity import READ_ONLY

DTypeName = Literal["float32", "bfloat16", "float16"]

# Strict, because true and false are not numbers; bounded, because databases and JSON are.
Integer = Annotated[int, Field(strict=True, lt=2**63)]
Number = Annotated[float, Field(strict=True)]
DeviceName = Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")]  # auto, cpu, cuda:1 ...
FunctionName = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]  # module:function


class Strict(BaseModel):
    """A part of the spec. It is immutable, and an unknown key is an error.

    The text under each field describes it in `docs/spec.md`.
    """

    model_config = READ_ONLY | ConfigDict(populate_by_name=True, use_attribute_docstrings=True)


class Range(Strict):
    """The values of a parameter: `[low, high]` is searched, a single number is fixed."""

    low: Number
    """The smallest value."""
    high: Number
    """The largest value."""

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("write a number or [low, high]")
        if isinstance(value, int | float):
            return {"low": value, "high": value}
        if isinstance(value, list | tuple):
            numbers = [x for x in value if isinstance(x, int | float) and not isinstance(x, bool)]
            if len(value) != 2 or len(numbers) != 2:
                raise ValueError("write a number or two numbers, [low, high]")
            return {"low": value[0], "high": value[1]}
        if isinstance(value, dict | Range):
            return value
        raise ValueError("write a number or [low, high]")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("both ends must be finite")
        if self.low > self.high:
            raise ValueError(
                f"the range [{self.low:g}, {self.high:g}] is empty; "
                f"write [{self.high:g}, {self.low:g}]"
            )
        return self

    @model_serializer
    def _to_yaml(self) -> float | list[float]:
        return self.low if self.fixed else [self.low, self.high]

    @property
    def fixed(self) -> bool:
        return self.low == self.high

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)
