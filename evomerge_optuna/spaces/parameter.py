"""Parameter space: a weight and a density per source model and layer group (paper, section 3.1)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from evomerge_optuna.methods import Method, Parameter, Value
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spec import Dimension, MergeSearchSpec

_OF_THE_MERGE = "merge"  # in the place of an alias, where several source models share a parameter


@dataclass(frozen=True)
class LayerGroup:
    """Tensors that share their parameters: a range of layers, or a filter on tensor names."""

    name: str
    layers: tuple[int, int] | None = None
    filter: str | None = None


@dataclass(frozen=True)
class _Place:
    """A parameter of one source model, or of all, in one layer group."""

    owner: str
    parameter: Parameter
    group: LayerGroup

    @property
    def name(self) -> str:
        return f"{self.owner}.{self.parameter.name}.{self.group.name}"


@dataclass(frozen=True)
class ParameterSpace(SearchSpace):
    """Turns an Optuna trial into a `MergeRecipe`.

    Parameters are named `ALIAS.PARAMETER.GROUP`, as in `ja.weight.g0`, or `merge.PARAMETER.GROUP`
    where several source models share one; a range that is a single number is no parameter. Layers
    are grouped from the input on, `g0` with the embeddings and the last group with the final norm
    and the head. With tensor-name filters a tensor belongs to the first filter its name contains,
    else to `other`.
    """

    spec: MergeSearchSpec
    groups: tuple[LayerGroup, ...]
    baseline_name = "uniform merge"
    fewer = "larger layer groups have fewer"

    @classmethod
    def of(cls, spec: MergeSearchSpec, layers: int) -> "ParameterSpace":
        """The space of a spec whose models have this many layers."""
        return cls(spec=spec, groups=tuple(_layer_groups(spec, layers)))

    def ranges(self) -> dict[str, Dimension]:
        """Every parameter the sampler searches, by name, in a fixed order."""
        return {place.name: found for place, found in self._searched()}

    def baseline(self) -> Values:
        """The uniform merge as parameters: equal weights that sum to 1, nothing dropped.

        Each value is moved into its range where the spec excludes it.
        """
        return {
            place.name: found.clip(self._uniform(place.parameter))
            for place, found in self._searched()
        }

    def sources(self) -> dict[str, Values]:
        """Each source model with weight 1, the others with 0, nothing dropped.

        None where the method has no parameter that leaves the other models out.
        """
        if all(parameter.alone is None for parameter in self._method.parameters):
            return {}
        return {
            alias: {
                place.name: found.clip(self._alone(place.parameter, place.owner == alias))
                for place, found in self._searched()
            }
            for alias in self.spec.models
        }

    def _searched(self) -> list[tuple[_Place, Dimension]]:
        found = [(place, self.spec.merge.dimension(place.parameter.name)) for place in self._places]
        return [(place, d) for place, d in found if d is not None and not d.fixed]

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

    def values_of(self, parameters: Values, recipe: Recipe) -> Values | None:
        """A merge of the same models by the same method, in groups of the same layers."""
        ranges = self.ranges()
        given = {name: parameters.get(name, found.first) for name, found in ranges.items()}
        shared = tuple(p.name for p in self.spec.merge.parameters if p.scope == "shared")
        if not isinstance(recipe, MergeRecipe):
            return None
        if not _merge_alike(self.recipe(given), recipe, shared):
            return None
        return {name: found.clip(given[name]) for name, found in ranges.items()}

    def recipe(self, values: Values) -> MergeRecipe:
        """The recipe of these parameter values; those not given are fixed by the spec."""
        configuration = _configuration(self.spec, self.groups, self.values(values))
        return MergeRecipe(
            configuration=configuration,
            seed=self.spec.sampler.seed,
            host=self.spec.host,
            components=self.spec.components,
            after=self.spec.merge.after,
        )

    def values(self, searched: Values) -> Values:
        """Every parameter by name, those too that the spec fixes."""
        found = ((place, self.spec.merge.dimension(place.parameter.name)) for place in self._places)
        fixed = {place.name: d.first for place, d in found if d is not None}
        return fixed | {name: searched[name] for name in fixed.keys() & searched.keys()}

    @property
    def _method(self) -> Method:
        return self.spec.merge.declared

    @cached_property
    def _places(self) -> tuple[_Place, ...]:
        return tuple(
            _Place(owner, parameter, group)
            for group in self.groups
            for owner, parameters in _owners(self.spec)
            for parameter in parameters
        )


def _owners(spec: MergeSearchSpec) -> list[tuple[str, list[Parameter]]]:
    """Whose parameters there are; a shared one belongs to the source model if there is but one."""
    every = spec.merge.parameters
    shared = [parameter for parameter in every if parameter.scope == "shared"]
    each = [parameter for parameter in every if parameter.scope == "source"]
    if spec.merge.declared.sources == (1, 1):
        return [(alias, list(every)) for alias in spec.models]
    return [*((alias, each) for alias in spec.models), (_OF_THE_MERGE, shared)]


def _merge_alike(a: MergeRecipe, b: MergeRecipe, shared: tuple[str, ...]) -> bool:
    """Do they merge the same models with the same values, whatever else they say?"""
    parts = ("merge_method", "base_model", "models", "slices")
    settings = [recipe.configuration.get("parameters", {}) for recipe in (a, b)]
    return all(a.configuration.get(part) == b.configuration.get(part) for part in parts) and all(
        settings[0].get(name) == settings[1].get(name) for name in shared
    )


def _layer_groups(spec: MergeSearchSpec, layers: int) -> Iterator[LayerGroup]:
    merge = spec.merge
    if merge.layer_groups is not None:
        for text in merge.layer_groups:
            yield LayerGroup(name=text, filter=text)
        yield LayerGroup(name="other")
        return
    if isinstance(merge.blocks, tuple):
        # The first filter that a name contains counts, and single_transformer_blocks.0 contains
        # transformer_blocks.0.
        for block in sorted(merge.blocks, key=lambda block: -len(block.partition(".")[0])):
            yield LayerGroup(name=_shorter(block), filter=f"{block}.")
        yield LayerGroup(name="other")
        return
    size = merge.layer_group_size or layers
    for number, start in enumerate(range(0, layers, size)):
        yield LayerGroup(name=f"g{number}", layers=(start, min(start + size, layers)))


def _shorter(block: str) -> str:
    """A block's name in those of parameters, as down.0 for down_blocks.0."""
    return re.sub(r"_blocks?\b", "", block)


def _configuration(
    spec: MergeSearchSpec, groups: tuple[LayerGroup, ...], values: Values
) -> dict[str, object]:
    """A mergekit configuration: slices for groups of layers, filters for groups of names."""
    merge = spec.merge
    parameters: dict[str, object] = {**merge.options}
    configuration: dict[str, object] = {"merge_method": merge.method}
    base = spec.base_model
    if base is None and merge.declared.base == "ignored":
        base = next(iter(spec.models.values()))  # gives config and tokenizer
    if base is not None:
        configuration["base_model"] = base
    if groups[0].layers is None:
        chosen = _Chosen(spec, groups, values)
        configuration["models"] = chosen.sources()
        parameters |= chosen.shared()
    else:
        configuration["slices"] = [
            _Chosen(spec, (group,), values).slice(group.layers) for group in groups if group.layers
        ]
    extras = {
        "parameters": parameters,
        "dtype": merge.dtype,
        "tokenizer_source": spec.tokenizer_source,
        "chat_template": merge.chat_template,
    }
    return configuration | {key: value for key, value in extras.items() if value}


@dataclass(frozen=True)
class _Chosen:
    """The values chosen for some groups, in the form mergekit reads them."""

    spec: MergeSearchSpec
    groups: tuple[LayerGroup, ...]
    values: Values

    def sources(self, **place: object) -> list[dict[str, object]]:
        """Every model with its parameters; the base model first, unless it is also a source."""
        method = self.spec.merge.declared
        each = [p for p in self.spec.merge.parameters if p.scope == "source"]
        models = [
            _source(model, place, {p.name: self._setting(alias, p) for p in each})
            for alias, model in self.spec.models.items()
        ]
        base = self.spec.base_model
        if base is None or base in self.spec.models.values():
            return models
        unused: dict[str, object] = {}
        if method.base == "ignored":
            # A base model is one source more: with weight 0 it gives config and tokenizer.
            unused = {p.name: p.alone[1] for p in each if p.alone is not None}
        return [_source(base, place, unused), *models]

    def shared(self) -> dict[str, object]:
        """Parameters of the merge as a whole."""
        return {
            parameter.name: self._setting(owner, parameter)
            for owner, parameters in _owners(self.spec)
            for parameter in parameters
            if parameter.scope == "shared"
        }

    def slice(self, layers: tuple[int, int]) -> dict[str, object]:
        sources: dict[str, object] = {"sources": self.sources(layer_range=list(layers))}
        shared = self.shared()
        return {**sources, "parameters": shared} if shared else sources

    def _setting(self, owner: str, parameter: Parameter) -> object:
        """One value, or with several groups a list of filters and values."""
        settings = [
            {"filter": group.filter, "value": parameter.for_mergekit(self._values(owner, group))}
            for group in self.groups
        ]
        if len(settings) == 1:
            return settings[0]["value"]
        return [{k: v for k, v in setting.items() if v is not None} for setting in settings]

    def _values(self, owner: str, group: LayerGroup) -> Values:
        """Values by parameter, in one group, of one source model and of the merge."""
        return {
            parameter.name: self.values[_Place(each, parameter, group).name]
            for each, parameters in _owners(self.spec)
            for parameter in parameters
            if each in (owner, _OF_THE_MERGE)
        }


def _source(
    model: str, place: dict[str, object], parameters: dict[str, object]
) -> dict[str, object]:
    source: dict[str, object] = {"model": model, **place}
    return {**source, "parameters": parameters} if parameters else source
