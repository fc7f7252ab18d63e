"""Parameter space: a weight and a density per source model and layer group (paper, section 3.1)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import MERGE_OPTIONS, MergeSearchSpec, Range

SHARED_PARAMETERS = ("t",)  # belong to the merge as a whole, not to one source model


@dataclass(frozen=True)
class LayerGroup:
    """Tensors that share their parameters: a range of layers, or a filter on tensor names."""

    name: str
    layers: tuple[int, int] | None = None
    filter: str | None = None


@dataclass(frozen=True)
class ParameterSpace(SearchSpace):
    """Turns an Optuna trial into a `MergeRecipe`.

    Parameters are named `ALIAS.PARAMETER.GROUP`, as in `ja.weight.g0`; a range that is a single
    number is no parameter. Layers are grouped from the input on, `g0` with the embeddings and the
    last group with the final norm and the head. With tensor-name filters a tensor belongs to the
    first filter its name contains, else to `other`.
    """

    spec: MergeSearchSpec
    groups: tuple[LayerGroup, ...]
    baseline_name = "uniform merge"
    fewer = "larger layer groups have fewer"

    @classmethod
    def of(cls, spec: MergeSearchSpec, layers: int) -> "ParameterSpace":
        """The space of a spec whose models have this many layers."""
        return cls(spec=spec, groups=tuple(_layer_groups(spec, layers)))

    def ranges(self) -> dict[str, Range]:
        """Every parameter the sampler searches, by name, in a fixed order."""
        return {name: found for name, found in self._all_ranges().items() if not found.fixed}

    def baseline(self) -> dict[str, float]:
        """The uniform merge as parameters: equal weights that sum to 1, nothing dropped.

        Each value is moved into its range where the spec excludes it.
        """
        wanted = {"weight": 1 / len(self.spec.models), "density": 1.0, "t": 0.5}
        return {name: found.clip(wanted[_kind(name)]) for name, found in self.ranges().items()}

    def sources(self) -> dict[str, dict[str, float]]:
        """Each source model with weight 1, the others with 0, nothing dropped."""

        def wanted(name: str, alias: str) -> float:
            alone = name.startswith(f"{alias}.")
            return {"weight": float(alone), "density": 1.0, "t": 1.0}[_kind(name)]

        return {
            alias: {name: found.clip(wanted(name, alias)) for name, found in self.ranges().items()}
            for alias in self.spec.models
        }

    def source(self, alias: str) -> MergeRecipe:
        """A source model as it is, with its own configuration."""
        configuration = {
            "merge_method": "passthrough",
            "models": [{"model": self.spec.models[alias]}],
            **({"dtype": self.spec.merge.dtype} if self.spec.merge.dtype else {}),
        }
        return MergeRecipe(configuration=configuration, seed=self.spec.sampler.seed)

    def values_of(self, parameters: dict[str, float], recipe: Recipe) -> dict[str, float] | None:
        """A merge of the same models by the same method, in groups of the same layers."""
        ranges = self.ranges()
        given = {name: parameters.get(name, found.low) for name, found in ranges.items()}
        if not isinstance(recipe, MergeRecipe) or not _merge_alike(self.recipe(given), recipe):
            return None
        return {name: found.clip(given[name]) for name, found in ranges.items()}

    def recipe(self, values: dict[str, float]) -> MergeRecipe:
        """The recipe of these parameter values; those not given are fixed by the spec."""
        configuration = _configuration(self.spec, self.groups, self.values(values))
        return MergeRecipe(
            configuration=configuration,
            seed=self.spec.sampler.seed,
            host=self.spec.host,
        )

    def values(self, searched: dict[str, float]) -> dict[str, float]:
        """Every weight, density or t by name, those too that the spec fixes."""
        return {name: searched.get(name, found.low) for name, found in self._all_ranges().items()}

    def _all_ranges(self) -> dict[str, Range]:
        return {
            _name(alias, parameter, group): self.spec.merge.range_of(parameter)
            for group in self.groups
            for alias in self.spec.models
            for parameter in self.spec.merge.searched
        }


def _merge_alike(a: MergeRecipe, b: MergeRecipe) -> bool:
    """Do they merge the same models with the same values, whatever else they say?"""
    parts = ("merge_method", "base_model", "models", "slices")
    return all(a.configuration.get(part) == b.configuration.get(part) for part in parts)


def _name(alias: str, parameter: str, group: LayerGroup) -> str:
    return f"{alias}.{parameter}.{group.name}"


def _kind(name: str) -> str:
    return name.split(".")[1]


def _layer_groups(spec: MergeSearchSpec, layers: int) -> Iterator[LayerGroup]:
    merge = spec.merge
    if merge.layer_groups is not None:
        for text in merge.layer_groups:
            yield LayerGroup(name=text, filter=text)
        yield LayerGroup(name="other")
        return
    size = merge.layer_group_size or layers
    for number, start in enumerate(range(0, layers, size)):
        yield LayerGroup(name=f"g{number}", layers=(start, min(start + size, layers)))


def _configuration(
    spec: MergeSearchSpec, groups: tuple[LayerGroup, ...], values: dict[str, float]
) -> dict[str, Any]:
    """A mergekit configuration: slices for groups of layers, filters for groups of names."""
    merge = spec.merge
    options = {name: merge.option(name) for name in MERGE_OPTIONS[merge.method]}
    parameters: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    configuration: dict[str, Any] = {
        "merge_method": merge.method,
        "base_model": spec.base_model or next(iter(spec.models.values())),
    }
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
    values: dict[str, float]

    def sources(self, **place: Any) -> list[dict[str, Any]]:
        """Every model with its parameters; the base model first, unless it is also a source."""
        models = [
            _source(model, place, {p: self._setting(alias, p) for p in self._searched(False)})
            for alias, model in self.spec.models.items()
        ]
        base = self.spec.base_model
        if base is None or base in self.spec.models.values():
            return models
        # To linear a base model is one source more: with weight 0 it gives config and tokenizer.
        unused = {"weight": 0.0} if self.spec.merge.method == "linear" else {}
        return [_source(base, place, unused), *models]

    def shared(self) -> dict[str, Any]:
        """Parameters of the merge as a whole; slerp, which has one, has one source model."""
        (alias, *_) = self.spec.models
        return {p: self._setting(alias, p) for p in self._searched(True)}

    def slice(self, layers: tuple[int, int]) -> dict[str, Any]:
        sources = {"sources": self.sources(layer_range=list(layers))}
        shared = self.shared()
        return {**sources, "parameters": shared} if shared else sources

    def _searched(self, shared: bool) -> list[str]:
        return [p for p in self.spec.merge.searched if (p in SHARED_PARAMETERS) == shared]

    def _setting(self, alias: str, parameter: str) -> Any:
        settings = [
            {"filter": group.filter, "value": self.values[_name(alias, parameter, group)]}
            for group in self.groups
        ]
        if len(settings) == 1:
            return settings[0]["value"]
        return [{k: v for k, v in setting.items() if v is not None} for setting in settings]


def _source(model: str, place: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    source = {"model": model, **place}
    return {**source, "parameters": parameters} if parameters else source
