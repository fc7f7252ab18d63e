"""AdapterRecipe: the complete description of one adapter made of other adapters."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, Field

from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.recipes.identity import READ_ONLY, Identified

Finite = Annotated[float, Field(allow_inf_nan=False)]


class ModuleGroup(BaseModel):
    """Modules of the base model that are merged with the same values.

    A list of values are those at points along the depth, from the first layer to the last; layers
    in between have values in between.
    """

    model_config = READ_ONLY

    layers: tuple[int, int] | None = None
    """The first, and the one after the last; None: all."""
    filter: str | None = None
    """A part of the modules' names; None: the modules that no group before has."""
    values: dict[str, dict[str, Finite | tuple[Finite, ...]]]
    """By adapter its parameters, as `weight`, by their names."""


class AdapterRecipe(Identified):
    """The adapters of a base model that are merged into one, with the values of each.

    Models are named as in the spec, an adapter with its base model as `BASE+ADAPTER`. Random masks
    are drawn by a seed in the order of the base model's modules, so that it is enough to make the
    adapter again bit for bit.

    Example:
        >>> group = ModuleGroup(values={"zoo:base+./es": {"weight": 0.5}})
        >>> recipe = AdapterRecipe(
        ...     base_model="zoo:base",
        ...     adapters=("zoo:base+./es",),
        ...     method="cat",
        ...     groups=(group,),
        ...     layers=8,
        ...     reads_as="zoo:base+./es",
        ...     seed=0,
        ... )
        >>> AdapterRecipe.model_validate_json(recipe.model_dump_json()) == recipe
        True
    """

    base_model: str
    adapters: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order in which they are merged."""
    method: str
    """A row of the table of methods that merge adapters."""
    groups: Annotated[tuple[ModuleGroup, ...], Field(min_length=1)]
    """A module is of the first that it fits."""
    options: dict[str, bool | int | float] = Field(default_factory=dict)
    """The method's options, where they are not its defaults."""
    max_rank: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    """What has a larger rank is cut; None: as the method does."""
    layers: Annotated[int, Field(ge=1, lt=2**63)]
    """How many the base model has."""
    reads_as: str
    """The model or adapter whose tokenizer it reads with."""
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    """Of the random masks."""
    random: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """The seed of random numbers that take the place of the adapters' own, A and B of every module
    with the norms of theirs; None: the adapters as they are."""

    @property
    def host(self) -> None:
        """None: an adapter is merged for language models of text alone."""

    def models(self) -> list[str]:
        """The base model, and every adapter with its base model."""
        return [self.base_model, *self.adapters]

    def located(self, locate: Callable[[str], str]) -> "AdapterRecipe":
        """The same recipe with every model's name replaced by `locate(name)`."""
        groups = (
            group.model_copy(update={"values": {locate(k): v for k, v in group.values.items()}})
            for group in self.groups
        )
        return self.model_copy(
            update={
                "base_model": locate(self.base_model),
                "adapters": tuple(map(locate, self.adapters)),
                "groups": tuple(groups),
                "reads_as": locate(self.reads_as),
            }
        )

    def to_yaml(self) -> str:
        """A group of modules after the other, each adapter with its values on one line."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude_none=True)
        return to_yaml(content, default_flow_style=None, width=120)
