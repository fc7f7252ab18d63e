"""How layers are stacked."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from evomerge_optuna.spec.part import DTypeName, Integer, Strict

MERGED = "merged"  # the merge's name among the models of a stack


class StackSpec(Strict):
    """How layers are stacked (paper, section 3.2).

    The layers of all models are written out in order, `repeats` times.
    """

    repeats: Annotated[Integer, Field(ge=1)] = 3
    """How often the layers are written out (r in the paper). Each slot is in the path or not."""
    scale: Literal["none", "step", "matrix", "network"] = "network"
    """Which scales are searched: none, `step` (one for each slot), `matrix` (one for each pair of
    layers), or `network` (the 21 weights of a small network)."""
    max_layers: Annotated[Integer, Field(ge=1)] | None = None
    """The most layers that a path may have. By default there is no limit."""
    anchors: Annotated[Integer, Field(ge=0)] = 0
    """The number of first and of last layers of the first model that stay where they are."""
    head: Literal["first", "last"] = "last"
    """Where the final norm and head come from: the first model, or the model of the last layer."""
    dtype: DTypeName | None = None
    """The dtype of the stack. The default is the models' own."""

    @model_validator(mode="after")
    def _room_for_anchors(self) -> "StackSpec":
        if self.max_layers is not None and self.max_layers < max(1, 2 * self.anchors):
            raise ValueError(
                f"max_layers: {self.max_layers} is less than the {2 * self.anchors} anchors"
            )
        return self


class MergedStackSpec(StackSpec):
    """A stack in which one model is a merge, called `merged`. It has the merge's dtype."""

    models: tuple[str, ...] | None = None
    """The models whose layers are stacked, in this order. The default is `merged` and all
    others."""

    @model_validator(mode="after")
    def _with_the_merge(self) -> "MergedStackSpec":
        if self.models is not None and MERGED not in self.models:
            raise ValueError(f"models: names no '{MERGED}'; write [{MERGED}, ...]")
        if self.models is not None and len(set(self.models)) < len(self.models):
            raise ValueError("models: names a model twice")
        if self.dtype is not None:
            raise ValueError("dtype: a stack of a merge has the merge's; give it there")
        return self
