"""StackRecipe: the complete description of one model made of other models' layers."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, Field

from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.recipes.identity import READ_ONLY, Host, Identified
from evomerge_optuna.recipes.merge import MergeRecipe


class Step(BaseModel):
    """One layer of the path, and what the residual stream is multiplied by before it."""

    model_config = READ_ONLY

    model: str
    layer: Annotated[int, Field(ge=0, lt=2**63)]
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0


class StackRecipe(Identified):
    """The layers that a token passes through, one after the other (paper, section 3.2).

    Embeddings, tokenizer and configuration are those of one model, final norm and head of one, too.
    Models are named as in the spec; any layer may be passed any number of times. A model may itself
    be a merge: `merges` has its recipe by the name that the steps call it. With a `host` the layers
    are of one part of the models, and the stack is put into the model of this name.

    Example:
        >>> recipe = StackRecipe(
        ...     embeddings="zoo:add",
        ...     steps=(Step(model="zoo:add", layer=0), Step(model="zoo:ja", layer=5, scale=0.9)),
        ...     head="zoo:ja",
        ... )
        >>> StackRecipe.model_validate_json(recipe.model_dump_json()) == recipe
        True
    """

    embeddings: str
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    head: str
    dtype: str | None = None
    merges: dict[str, MergeRecipe] = Field(default_factory=dict)
    host: Host = None

    def models(self) -> list[str]:
        """Every model that is part of it, the embeddings' first."""
        named = [self.embeddings, *(step.model for step in self.steps), self.head]
        return list(dict.fromkeys(named))

    def located(self, locate: Callable[[str], str]) -> "StackRecipe":
        """The same recipe with every model's name, a merge's too, replaced by `locate(name)`."""
        steps = [step.model_copy(update={"model": locate(step.model)}) for step in self.steps]
        return self.model_copy(
            update={
                "embeddings": locate(self.embeddings),
                "steps": tuple(steps),
                "head": locate(self.head),
                "merges": {},
                "host": None if self.host is None else locate(self.host),
            }
        )

    def to_yaml(self) -> str:
        """One step a line."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        # None: collections of plain values on one line, others in blocks.
        return to_yaml(content, default_flow_style=None, width=120)
