"""Parameter space: a weight and a density per source model and layer group (paper, section 3.1)."""

from dataclasses import dataclass
from functools import cached_property

from evomerge_optuna.methods import BASELINES, METHODS, Method, Parameter, Value
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spaces.by_hand import merges_by_hand
from evomerge_optuna.spaces.configuration import baseline_configuration, merge_configuration
from evomerge_optuna.spaces.groups import LayerGroup, layer_groups
from evomerge_optuna.spaces.places import Place, Places
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spec import Choices, Dimension, MergeSearchSpec

METHOD = "merge.method"
_INCLUDE = "include"


@dataclass(frozen=True)
class ParameterSpace(SearchSpace):
    """Turns an Optuna trial into a `MergeRecipe`.

    Parameters are named `ALIAS.PARAMETER.GROUP`, as in `ja.weight.g0`, or `merge.PARAMETER.GROUP`
    where several source models share one; a range that is a single number is no parameter. Layers
    are grouped from the input on, `g0` with the embeddings and the last group with the final norm
    and the head. With tensor-name filters a tensor belongs to the first filter its name contains,
    else to `other`. Interpolated values are those at `p0`, `p1` and so on along the depth.
    `merge.method` is the method, and `ALIAS.include` whether a source model takes part, where they
    are searched.
    """

    spec: MergeSearchSpec
    groups: tuple[LayerGroup, ...]
    baseline_name = "uniform merge"
    fewer = "larger layer groups have fewer"

    @classmethod
    def of(cls, spec: MergeSearchSpec, layers: int) -> "ParameterSpace":
        """The space of a spec whose models have this many layers."""
        return cls(spec=spec, groups=layer_groups(spec.merge, layers))

    def ranges(self) -> dict[str, Dimension]:
        """Every parameter the sampler searches, by name, in a fixed order."""
        methods = tuple(method.name for method in self.spec.merge.methods)
        of_the_merge = {METHOD: Choices(methods)} if len(methods) > 1 else {}
        included = dict.fromkeys(self._flags(), Choices((True, False)))
        return {**of_the_merge, **included, **{p.name: p.dimension for p in self._searched}}

    def baseline(self) -> Values:
        """The uniform merge as parameters: equal weights that sum to 1, nothing dropped.

        Each value is moved into its range where the spec excludes it. Of several methods it is the
        first, and all source models take part.
        """
        return self._discrete(self.spec.merge.methods[0]) | {
            place.name: place.dimension.clip(self._uniform(place.parameter))
            for place in self._searched
        }

    def sources(self) -> dict[str, Values]:
        """Each source model with weight 1, the others with 0 or left out, nothing dropped.

        None where no method has a parameter that leaves the other models out.
        """
        methods = [
            method
            for method in self.spec.merge.methods
            if any(parameter.alone is not None for parameter in method.parameters)
        ]
        if not methods:
            return {}
        return {
            alias: self._discrete(methods[0], alias)
            | {
                place.name: place.dimension.clip(self._alone(place.parameter, place.owner == alias))
                for place in self._searched
            }
            for alias in self.spec.models
        }

    def starts(self) -> dict[str, Values]:
        """Merges by hand, each once; see `by_hand`. Of several methods by the first."""
        seen, found = {_key(self.baseline())}, dict[str, Values]()
        for merge in merges_by_hand(tuple(self.spec.models)):
            values = self._discrete(self.spec.merge.methods[0], *merge.aliases) | {
                place.name: merge.value_at(place, self._uniform(place.parameter))
                for place in self._searched
            }
            if _key(values) not in seen:
                seen.add(_key(values))
                found[merge.name] = values
        return found

    def _discrete(self, method: Method, *alone: str) -> Values:
        """The method, and which source models take part: all, or these alone."""
        flags = {flag: not alone or alias in alone for flag, alias in self._flags().items()}
        return {METHOD: method.name, **flags} if len(self.spec.merge.methods) > 1 else {**flags}

    def _flags(self) -> dict[str, str]:
        """The names of the parameters that say which source models take part, and their aliases."""
        if self.spec.merge.include is None:
            return {}
        return {f"{alias}.{_INCLUDE}": alias for alias in self.spec.models}

    @cached_property
    def _searched(self) -> list[Place]:
        return [place for place in self._places.every if not place.dimension.fixed]

    def _uniform(self, parameter: Parameter) -> Value:
        return 1 / len(self.spec.models) if parameter.uniform is None else parameter.uniform

    def _alone(self, parameter: Parameter, is_its_own: bool) -> Value:
        if parameter.alone is None:
            return self._uniform(parameter)
        return parameter.alone[0] if is_its_own else parameter.alone[1]

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
        flags = {flag: self.spec.models[alias] in models for flag, alias in self._flags().items()}
        given = self.baseline() | self._discrete(method) | flags
        for place in self._searched:
            for found in place.names:
                if found in parameters:
                    given[place.name] = parameters[found]
        parameters_of = self.spec.merge.parameters_of(method)
        shared = tuple(p.name for p in parameters_of if p.scope == "shared")
        if not _merge_alike(self.recipe(given), recipe, shared):
            return None
        return {name: found.clip(given[name]) for name, found in self.ranges().items()}

    def recipe(self, values: Values) -> MergeRecipe:
        """The recipe of these parameter values; those not given are fixed by the spec."""
        method, aliases = self._method(values), self._included(values)
        configuration = merge_configuration(
            self.spec, self._places, method, aliases, self.values(values)
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

    def values(self, searched: Values) -> Values:
        """Those that the spec fixes, too; what is idle is not among them."""
        places = self._places.of(self._method(searched), self._included(searched))
        return {place.name: searched.get(place.name, place.dimension.first) for place in places}

    def _method(self, values: Values) -> Method:
        """The method that is drawn."""
        return METHODS[str(values.get(METHOD, self.spec.merge.methods[0].name))]

    def _included(self, values: Values) -> list[str]:
        """The source models that take part: those drawn, and the first others if these are too few.

        So every draw is a merge, with as many source models as its method needs.
        """
        drawn = [alias for flag, alias in self._flags().items() if values.get(flag, True)]
        if not self._flags():
            return list(self.spec.models)
        others = [alias for alias in self.spec.models if alias not in drawn]
        chosen = {*drawn, *others[: max(0, self.spec.fewest_sources - len(drawn))]}
        return [alias for alias in self.spec.models if alias in chosen]

    @cached_property
    def _places(self) -> Places:
        return Places(self.spec.merge, tuple(self.spec.models), self.groups)


def _key(values: Values) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))


def _merge_alike(a: MergeRecipe, b: MergeRecipe, shared: tuple[str, ...]) -> bool:
    """Do they merge the same models with the same values, whatever else they say?"""
    parts = ("merge_method", "base_model", "models", "slices")
    settings = [recipe.configuration.get("parameters", {}) for recipe in (a, b)]
    return all(a.configuration.get(part) == b.configuration.get(part) for part in parts) and all(
        settings[0].get(name) == settings[1].get(name) for name in shared
    )
