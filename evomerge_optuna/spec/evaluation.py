"""How the candidates of a study are built and run."""

from typing import Annotated, Literal

from pydantic import ByteSize, Field, field_validator

from evomerge_optuna.spec.part import DTypeName, Integer, Strict


class EvaluationSpec(Strict):
    """How candidates are built and run; but for `dtype` it changes speed, not what is searched."""

    batch_size: Annotated[Integer, Field(ge=1)] = 64
    """Problems at a time."""
    dtype: DTypeName | None = None
    """What candidates are scored in, which may change their scores; as they are unless given. They
    are merged, hashed and exported as the recipe says."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto: on a GPU if there is one."""
    merger: Literal["resident", "checkpoint"] = "resident"
    """In memory, or by a checkpoint of each candidate, for models that do not fit."""
    memory_limit: ByteSize | None = None
    """What may be kept between trials, as `16GB`; 70% of what is free unless given."""
    max_retries: Annotated[Integer, Field(ge=0)] = 3
    """How often a trial is tried again whose workers die at one place of it."""

    @field_validator("memory_limit")
    @classmethod
    def _with_a_unit(cls, value: ByteSize | None) -> ByteSize | None:
        if value is not None and value < 10**6:
            raise ValueError(f"{int(value)} bytes is less than a megabyte; write a unit, as 16GB")
        if value is not None and value >= 2**63:
            raise ValueError("is more than any machine has; write it as 16GB")
        return value
