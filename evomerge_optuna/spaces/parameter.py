"""Parameter space: a weight and a density per source model and layer group (paper, section 3.1)."""

from dataclasses import dataclass

from evomerge_optuna.methods import BASELINES, METHODS
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spaces.configuration import baseline_configuration, merge_configuration
from evomerge_optuna.spaces.groups import layer_groups
from evomerge_optuna.spaces.searched import SearchedSpace
from evomerge_optuna.spaces.space import Values
from evomerge_optuna.spec import MergeSearchSpec


@dataclass(frozen=True)
class ParameterSpace(SearchedSpace[MergeSearchSpec]):
    """Turns an Optuna trial into a `MergeRecipe`."""

    @classmethod
    def of(cls, spec: MergeSearchSpec, layers: int) -> "ParameterSpace":
        """The space of a spec whose models have this many layers."""
        return cls(spec=spec, groups=layer_groups(spec.merge, layers))

    def source(self, alias: str) -> MergeRecipe:
        """A source model as it is, with its own configuration."""
        configuration = {
            "merge_method": "passthrough",
            "models": [{"model": self.spec.models[alias]}],
            **({"dtype": self.spec.merge.dtype} if self.spec.merge.dtype else {}),
        }
        return MergeRecipe(configuration=configuration, seed=self.spec.sampler.seed)

    def unsearched(self) -> dict[str, MergeRecipe]:
        """All source models merged by each method that has nothing to search and takes them."""
        found = {row.name: baseline_configuration(self.spec, row) for row in BASELINES.values()}
        return {
            f"{name} merge": self._recipe(configuration)
            for name, configuration in found.items()
            if configuration is not None
        }

    def values_of(self, parameters: Values, recipe: Recipe) -> Values | None:
        """A merge of the same models by the same method, in groups of the same layers."""
        if not isinstance(recipe, MergeRecipe):
            return None
        names = [method.name for method in self.spec.merge.methods]
        if (name := recipe.configuration.get("merge_method")) not in names:
            return None
        method, models = METHODS[name], recipe.models()
        given = self.values_from(parameters, method, models)
        parameters_of = self.spec.merge.parameters_of(method)
        shared = tuple(p.name for p in parameters_of if p.scope == "shared")
        if not _merge_alike(self.recipe(given), recipe, shared):
            return None
        return {name: found.clip(given[name]) for name, found in self.ranges().items()}

    def recipe(self, values: Values) -> MergeRecipe:
        """The recipe of these parameter values; those not given are fixed by the spec."""
        method, aliases = self.method_of(values), self.included(values)
        configuration = merge_configuration(
            self.spec, self.places, method, aliases, self.values(values)
        )
        return self._recipe(configuration)

    def _recipe(self, configuration: dict[str, object]) -> MergeRecipe:
        return MergeRecipe(
            configuration=configuration,
            seed=self.spec.sampler.seed,
            host=self.spec.host,
            components=self.spec.components,
            after=self.spec.merge.after,
        )


def _merge_alike(a: MergeRecipe, b: MergeRecipe, shared: tuple[str, ...]) -> bool:
    """Do they merge the same models with the same values, whatever else they say?"""
    parts = ("merge_method", "base_model", "models", "slices")
    settings = [recipe.configuration.get("parameters", {}) for recipe in (a, b)]
    return all(a.configuration.get(part) == b.configuration.get(part) for part in parts) and all(
        settings[0].get(name) == settings[1].get(name) for name in shared
    )
