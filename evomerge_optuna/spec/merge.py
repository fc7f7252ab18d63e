"""How source models are merged by mergekit, and what of it is searched."""

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from evomerge_optuna.methods import METHODS
from evomerge_optuna.recipes.merge import Fused
from evomerge_optuna.spec.part import DTypeName
from evomerge_optuna.spec.searched_merge import GROUPS, SearchedMerge, with_keys_of

OF_PIPELINES = ("blocks", "components", "after")  # are for them alone


@with_keys_of(
    METHODS,
    "mergekit's merge method. Of a list of them one is chosen in every trial, together with its "
    "parameters.",
)
class MergeSpec(SearchedMerge):
    """How the source models are merged, and what of it is searched.

    The table above says which parameters and options a method has, the ranges in which parameters
    are searched unless given, and the default values of options. Each of them takes

    - a number, or `true` or `false`, which is fixed
    - `[low, high]`, which is searched: any number of the range
    - `{log: [low, high]}`, which is searched by its logarithm, for what may be small by far
    - choices, of which one is searched: `[true, false]`, three or more numbers as `[0, 0.5, 1]`, or
      `{choices: [0.5, 1]}`, since two numbers alone are a range
    """

    keys_of_groups: ClassVar[tuple[str, ...]] = (*GROUPS, *OF_PIPELINES)
    always_stored: ClassVar[tuple[str, ...]] = ("normalize", "int8_mask", "lambda")

    blocks: bool | tuple[Annotated[str, Field(min_length=1)], ...] = False
    """Groups by the blocks of a pipeline's denoiser instead: `true` for all of them, or their
    names, for example `[down_blocks.0, mid_block]`. All other tensors form one more group."""
    components: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What is merged of pipelines, for example `[unet, text_encoder]`. By default the denoiser
    alone."""
    after: Fused | None = None
    """A LoRA that is fused into a merge of pipelines once it is made, for example
    `{lora: ./four_steps.safetensors, scale: 1}`."""
    dtype: DTypeName | None = None
    """The dtype in which the merge is made and kept. The default is the models' own."""
    tokenizer_source: Annotated[str, Field(min_length=1)] | None = None
    """The vocabulary of the merge. It is needed where the models' vocabularies differ.

    `base`, `union`, or the name of one of `models`.
    """
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """The chat template of the merge. The default is that of its tokenizer.

    `auto` takes the template that most of the models have. Otherwise write the name of one of
    mergekit's, for example `chatml`, or the template itself.
    """

    @model_validator(mode="after")
    def _blocks_or_layers(self) -> "MergeSpec":
        others = {n: getattr(self, n) for n in ("layer_group_size", "interpolate", "layer_groups")}
        if self.blocks and (given := [name for name, value in others.items() if value is not None]):
            raise ValueError(f"give blocks or {given[0]}, not both")
        return self

    @property
    def block_filters(self) -> tuple[str, ...]:
        return self.blocks if isinstance(self.blocks, tuple) else ()

    @property
    def drops(self) -> bool:
        """May a merge drop a part of the task vectors?"""
        densities = [p for p in self._declared if p.name == "density"]
        return not densities or self.dimension_of(densities[0]).low < 1
