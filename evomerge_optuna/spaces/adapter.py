"""The space of adapters: a weight and a density per adapter and layer group."""

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge_optuna.methods import ADAPTER_METHODS, Method, Parameter
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spaces.groups import LayerGroup, layer_groups
from evomerge_optuna.spaces.searched import SearchedSpace
from evomerge_optuna.spaces.space import Values
from evomerge_optuna.spec import AdapterStudySpec


@dataclass(frozen=True)
class AdapterSpace(SearchedSpace[AdapterStudySpec]):
    """Turns an Optuna trial into an `AdapterRecipe`.

    Args:
        layers: how many the base model has.
    """

    layers: int

    @classmethod
    def of(cls, spec: AdapterStudySpec, layers: int) -> "AdapterSpace":
        """The space of a spec whose base model has this many layers."""
        return cls(spec, layer_groups(spec.merge, layers), layers)

    def recipe(self, values: Values) -> AdapterRecipe:
        """The recipe of these parameter values; those not given are fixed by the spec."""
        method, aliases = self.method_of(values), self.included(values)
        every = self.values(values)
        options = self.spec.merge.options_of(method)
        searched = [p for p in self.spec.merge.parameters_of(method) if p.scope == "shared"]
        first, *_ = self.groups
        for option in searched:  # of all adapters and modules; see `Option.searched`
            found = self.places.values_at(method, aliases[0], first, None, every)
            options[option.name] = found[option.name]
        return AdapterRecipe(
            base_model=self.spec.base_model,
            adapters=tuple(self.spec.models[alias] for alias in aliases),
            method=method.name,
            groups=tuple(self._group(method, aliases, group, every) for group in self.groups),
            options={name: value for name, value in options.items() if not isinstance(value, str)},
            max_rank=self.spec.merge.max_rank,
            layers=self.layers,
            reads_as=self._reads_as,
            seed=self.spec.sampler.seed,
        )

    def alone(self, alias: str) -> AdapterRecipe:
        """An adapter as it is."""
        model = self.spec.models[alias]
        return AdapterRecipe(
            base_model=self.spec.base_model,
            adapters=(model,),
            method="cat",
            groups=(ModuleGroup(values={model: {"weight": 1.0}}),),
            layers=self.layers,
            reads_as=self._reads_as,
            seed=self.spec.sampler.seed,
        )

    def values_of(self, parameters: Values, recipe: Recipe) -> Values | None:
        """A merge of the same adapters by the same method, in groups of the same layers."""
        names = [method.name for method in self.spec.merge.methods]
        if not isinstance(recipe, AdapterRecipe) or recipe.method not in names:
            return None
        given = self.values_from(parameters, ADAPTER_METHODS[recipe.method], recipe.adapters)
        same = {"max_rank": recipe.max_rank, "reads_as": recipe.reads_as, "seed": recipe.seed}
        if self.recipe(given).model_copy(update=same) != recipe:
            return None
        return {name: found.clip(given[name]) for name, found in self.ranges().items()}

    @property
    def _reads_as(self) -> str:
        """The first adapter's, which may have a tokenizer; all have the same vocabulary."""
        return next(iter(self.spec.models.values()))

    def _group(
        self, method: Method, aliases: Sequence[str], group: LayerGroup, values: Values
    ) -> ModuleGroup:
        each = [p for p in self.spec.merge.parameters_of(method) if p.scope == "source"]
        return ModuleGroup(
            layers=group.layers,
            filter=group.filter,
            values={
                self.spec.models[alias]: {
                    p.name: self._value(method, alias, group, p, values) for p in each
                }
                for alias in aliases
            },
        )

    def _value(
        self, method: Method, alias: str, group: LayerGroup, parameter: Parameter, values: Values
    ) -> float | tuple[float, ...]:
        """One value, or values along the depth where they differ."""
        found = [
            float(self.places.values_at(method, alias, group, point, values)[parameter.name])
            for point in range(self.spec.merge.interpolate or 1)
        ]
        return tuple(found) if len(set(found)) > 1 else found[0]
