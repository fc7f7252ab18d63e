"""How layers are stacked."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from evomerge_optuna.spec.part import DTypeName, Integer, Strict

MERGED = "merged"  # the merge's name among the models of a stack


class StackSpec(Strict):
    """How layers are stacked (paper, section 3.2): all models' layers in order, r times over."""

    repeats: Annotated[Integer, Field(ge=1)] = 3
    """r: how often the layers are written out; each slot is in the path or not."""
    scale: Literal["none", "step", "matrix", "network"] = "network"
    """What the scales are searched as: not; one a slot; one a pair of layers; 21 weights."""
    max_layers: Annotated[Integer, Field(ge=1)] | None = None
    """No path is longer; no limit unless given."""
    anchors: Annotated[Integer, Field(ge=0)] = 0
    """So many first and last layers of the first model stay where they are."""
    head: Literal["first", "last"] = "last"
    """Whose final norm and head: the first model's, or those of the last layer's model."""
    dtype: DTypeName | None = None
    """In which the stack is made; the models' own unless given."""

    @model_validator(mode="after")
    def _room_for_anchors(self) -> "StackSpec":
        if self.max_layers is not None and self.max_layers < max(1, 2 * self.anchors):
            raise ValueError(
                f"max_layers: {self.max_layers} is less than the {2 * self.anchors} anchors"
            )
        return self


class MergedStackSpec(StackSpec):
    """A stack of which one model is a merge, called `merged`; it has the merge's dtype."""

    models: tuple[str, ...] | None = None
    """Which models' layers, in this order; `merged` and all others unless given."""

    @model_validator(mode="after")
    def _with_the_merge(self) -> "MergedStackSpec":
        if self.models is not None and MERGED not in self.models:
            raise ValueError(f"models: names no '{MERGED}'; write [{MERGED}, ...]")
        if self.models is not None and len(set(self.models)) < len(self.models):
            raise ValueError("models: names a model twice")
        if self.dtype is not None:
            raise ValueError("dtype: a stack of a merge has the merge's; give it there")
        return self
