"""The base class of all parts of a spec, and the types of their values."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

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
