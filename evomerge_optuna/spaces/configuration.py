"""mergekit's configuration of a merge: slices for groups of layers, filters for groups of names."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evomerge_optuna.methods import Method, Parameter, Value
from evomerge_optuna.spaces.groups import LayerGroup
from evomerge_optuna.spaces.places import Place, Places
from evomerge_optuna.spaces.space import Values
from evomerge_optuna.spec import MergeSearchSpec


def merge_configuration(
    spec: MergeSearchSpec, places: Places, method: Method, aliases: Sequence[str], values: Values
) -> dict[str, object]:
    """The configuration of a merge of these source models by this method.

    Args:
        values: of all the places that such a merge has, by their names.
    """
    merge, groups = spec.merge, places.groups
    if method.divides is not None and merge.options_of(method).get(method.divides) is not False:
        values = _with_a_sum(places.of(method, aliases), values)
    models = {alias: spec.models[alias] for alias in aliases}
    parameters: dict[str, object] = {**merge.options_of(method)}
    configuration: dict[str, object] = {"merge_method": method.name}
    base = spec.base_model
    if base is None and method.base == "ignored":
        base = next(iter(models.values()))  # gives config and tokenizer
    if base is not None:
        configuration["base_model"] = base
    if groups[0].layers is None:
        chosen = _Chosen(spec, places, method, models, groups, values)
        configuration["models"] = chosen.sources()
        parameters |= chosen.shared()
    else:
        spans = dict.fromkeys(group.layers for group in groups if group.layers is not None)
        configuration["slices"] = [
            _Chosen(
                spec, places, method, models, tuple(g for g in groups if g.layers == span), values
            ).slice(span)
            for span in spans
        ]
    extras = {
        "parameters": parameters,
        "dtype": merge.dtype,
        "tokenizer_source": spec.tokenizer_source,
        "chat_template": merge.chat_template,
    }
    return configuration | {key: value for key, value in extras.items() if value}


def _with_a_sum(places: Iterable[Place], values: Values) -> Values:
    """The values, with equal weights where all of a group are 0."""
    groups = defaultdict(list)
    for place in places:
        if place.parameter.name == "weight":
            groups[place.group, place.point].append(place.name)
    empty = [names for names in groups.values() if all(values[name] == 0 for name in names)]
    return values | {name: 1.0 for names in empty for name in names}


def baseline_configuration(spec: MergeSearchSpec, method: Method) -> dict[str, object] | None:
    """The merge of all source models by a method that has nothing to search.

    None where the method does not merge such models: too few or too many of them, a base model that
    is missing or one of them, or a tokenizer that only a base model has which it does not take.
    """
    sources, (least, most) = list(spec.models.values()), method.sources
    takes_base = method.base != "ignored"
    if len(sources) < least or (most is not None and len(sources) > most):
        return None
    if takes_base and (spec.base_model is None or spec.base_model in sources):
        return None
    if not takes_base and spec.tokenizer_source == "base":
        return None
    base = [spec.base_model] if takes_base else []
    given = {
        "base_model": spec.base_model if takes_base else None,
        "dtype": spec.merge.dtype,
        "tokenizer_source": spec.tokenizer_source,
        "chat_template": spec.merge.chat_template,
    }
    return {
        "merge_method": method.name,
        "models": [{"model": model} for model in (*base, *sources)],
        **{key: value for key, value in given.items() if value},
    }


@dataclass(frozen=True)
class _Chosen:
    """The values chosen for some groups, in the form mergekit reads them."""

    spec: MergeSearchSpec
    places: Places
    method: Method
    models: dict[str, str]
    groups: Sequence[LayerGroup]
    values: Values

    def sources(self, **place: object) -> list[dict[str, object]]:
        """Every model with its parameters; the base model first, unless it is also a source."""
        each = [p for p in self._parameters if p.scope == "source"]
        models = [
            _source(model, place, {p.name: self._setting(alias, p) for p in each})
            for alias, model in self.models.items()
        ]
        base = self.spec.base_model
        if base is None or base in self.models.values():
            return models
        unused: dict[str, object] = {}
        if self.method.base == "ignored":
            # A base model is one source more: with weight 0 it gives config and tokenizer.
            unused = {p.name: p.alone[1] for p in each if p.alone is not None}
        return [_source(base, place, unused), *models]

    def shared(self) -> dict[str, object]:
        """Parameters of the merge as a whole."""
        owner = next(iter(self.models))  # shared by all, whoever asks
        return {p.name: self._setting(owner, p) for p in self._parameters if p.scope == "shared"}

    def slice(self, layers: tuple[int, int]) -> dict[str, object]:
        sources: dict[str, object] = {"sources": self.sources(layer_range=list(layers))}
        shared = self.shared()
        return {**sources, "parameters": shared} if shared else sources

    @property
    def _parameters(self) -> tuple[Parameter, ...]:
        return self.spec.merge.parameters_of(self.method)

    def _setting(self, alias: str, parameter: Parameter) -> object:
        """One value, or with several groups a list of filters and values."""
        settings = [
            {"filter": group.filter, "value": self._value(alias, parameter, group)}
            for group in self.groups
        ]
        if len(settings) == 1:
            return settings[0]["value"]
        return [{k: v for k, v in setting.items() if v is not None} for setting in settings]

    def _value(self, alias: str, parameter: Parameter, group: LayerGroup) -> Value | list[Value]:
        """One value, or a list of values along the depth where they differ."""
        values = [
            parameter.for_mergekit(
                self.places.values_at(self.method, alias, group, point, self.values)
            )
            for point in range(self.spec.merge.interpolate or 1)
        ]
        return values if len(set(values)) > 1 else values[0]


def _source(
    model: str, place: dict[str, object], parameters: dict[str, object]
) -> dict[str, object]:
    source: dict[str, object] = {"model": model, **place}
    return {**source, "parameters": parameters} if parameters else source
