"""How the candidates of a study are built and run."""

from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator

from evomerge_optuna.spec.part import DTypeName, Integer, Strict


class EvaluationSpec(Strict):
    """How candidates are built and run. Only `dtype` may change scores; the rest changes the
    speed."""

    batch_size: Annotated[Integer, Field(ge=1)] = 64
    """The number of problems that are run at a time."""
    dtype: DTypeName | None = None
    """The dtype in which candidates are scored. It may change their scores. They are merged, hashed
    and exported in the recipe's dtype, which is also the default here."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run. `auto` takes a GPU if there is one."""
    merger: Literal["resident", "checkpoint"] = "resident"
    """`resident` merges in memory. `checkpoint` writes and loads every candidate, for models that
    do not fit into memory together."""
    memory_limit: ByteSize | None = None
    """How much memory may be kept between trials, for example `16GB`. The default is 70% of the
    free memory."""
    max_retries: Annotated[Integer, Field(ge=0)] = 3
    """How often a trial is repeated when its workers die at the same place of it."""

    @field_validator("memory_limit")
    @classmethod
    def _with_a_unit(cls, value: ByteSize | None) -> ByteSize | None:
        if value is not None and value < 10**6:
            raise ValueError(f"{int(value)} bytes is less than a megabyte; write a unit, as 16GB")
        if value is not None and value >= 2**63:
            raise ValueError("is more than any machine has; write it as 16GB")
        return value
