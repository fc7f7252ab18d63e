"""How source models are merged, and what of it is searched."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from evomerge_optuna.spec.part import DTypeName, Integer, Number, Range, Strict

MergeMethodName = Literal["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp"]

# Every parameter a method searches, and whether it belongs to each source model or to the merge.
SEARCHED_PARAMETERS: dict[str, tuple[str, ...]] = {
    "linear": ("weight",),
    "task_arithmetic": ("weight",),
    "ties": ("weight", "density"),
    "dare_linear": ("weight", "density"),
    "dare_ties": ("weight", "density"),
    "slerp": ("t",),
}
# What mergekit's method accepts beside the searched parameters.
MERGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": ("normalize",),
    "task_arithmetic": ("normalize", "lambda"),
    "ties": ("normalize", "int8_mask", "lambda"),
    "dare_linear": ("normalize", "lambda"),
    "dare_ties": ("normalize", "int8_mask", "lambda"),
    "slerp": (),
}


class MergeSpec(Strict):
    """How the source models are merged, and what of it is searched."""

    method: MergeMethodName
    """mergekit's merge method."""
    weight: Range = Range(low=0.0, high=1.0)
    """Of each source model and layer group: `[low, high]` is searched, a number is fixed."""
    density: Range = Range(low=0.1, high=1.0)
    """The share of each task vector that is kept, in [0, 1]; of the methods ties and dare."""
    t: Range = Range(low=0.0, high=1.0)
    """Of slerp: 0 is the base model, 1 the source model."""
    layer_group_size: Annotated[Integer, Field(ge=1)] | None = None
    """So many layers next to each other share their parameters; all do unless given."""
    layer_groups: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Filters of tensor names instead, as `[self_attn, mlp]`; the rest is one more group."""
    normalize: bool | None = None
    """Divide by the sum of the weights; mergekit's default of the method unless given."""
    int8_mask: bool | None = None
    """mergekit's option of that name."""
    lambda_: Number | None = Field(default=None, alias="lambda")
    """What the merged task vector is multiplied by."""
    dtype: DTypeName | None = None
    """In which the merged model is made and kept; the models' own unless given."""
    tokenizer_source: Annotated[str, Field(min_length=1)] | None = None
    """Whose vocabulary the merge has where the models' differ; refused there unless given.

    `base`, `union`, or the name of one of `models`.
    """
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """The merged model's chat template, where it is not to be that of its tokenizer.

    `auto` for the one that most of the models have, the name of one of mergekit's, as `chatml`, or
    the template itself.
    """

    @field_validator("density", "t")
    @classmethod
    def _within_unit_interval(cls, value: Range) -> Range:
        if value.low < 0 or value.high > 1:
            raise ValueError("the range must lie within [0, 1]")
        return value

    @field_validator("lambda_")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("must be finite")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "MergeSpec":
        if self.layer_group_size is not None and self.layer_groups is not None:
            raise ValueError("give layer_group_size or layer_groups, not both")
        if self.layer_groups is not None:
            if not self.layer_groups:
                raise ValueError("layer_groups is empty; name tensor filters, as [self_attn, mlp]")
            if len(set(self.layer_groups)) < len(self.layer_groups):
                raise ValueError("layer_groups names a filter twice")
            if "other" in self.layer_groups:
                raise ValueError(
                    "layer_groups: 'other' is the group of all tensors no filter matches; leave "
                    "it out"
                )
        for name in ("weight", "density", "t"):
            if name in self.model_fields_set and name not in self.searched:
                raise ValueError(
                    f"{self.method} has no parameter '{name}'; it has {', '.join(self.searched)}"
                )
        for name in ("normalize", "int8_mask", "lambda"):
            given = self.option(name) is not None
            if given and name not in MERGE_OPTIONS[self.method]:
                known = ", ".join(MERGE_OPTIONS[self.method]) or "none"
                raise ValueError(f"{self.method} has no option '{name}'; it has {known}")
        return self

    @model_serializer(mode="wrap")
    def _without_foreign_parameters(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what the method does not have, since a spec that gives it is refused."""
        foreign = {"weight", "density", "t"} - set(self.searched)
        return {name: value for name, value in dump(self).items() if name not in foreign}

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters this method searches."""
        return SEARCHED_PARAMETERS[self.method]

    def range_of(self, parameter: str) -> Range:
        """The range of one searched parameter ('weight', 'density' or 't')."""
        return {"weight": self.weight, "density": self.density, "t": self.t}[parameter]

    def option(self, name: str) -> bool | float | None:
        """The value of one of mergekit's options, None where mergekit's own default holds."""
        options = {"normalize": self.normalize, "int8_mask": self.int8_mask, "lambda": self.lambda_}
        return options[name]
