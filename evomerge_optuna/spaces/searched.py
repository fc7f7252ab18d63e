"""The space of a merge, whatever is merged: values of parameters at places, the same for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Generic, Protocol, TypeVar

from evomerge_optuna.methods import Method, Parameter, Value
from evomerge_optuna.spaces.by_hand import merges_by_hand
from evomerge_optuna.spaces.groups import LayerGroup
from evomerge_optuna.spaces.places import Place, Places
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spec import Choices, Dimension, SearchedMerge

METHOD = "merge.method"
_INCLUDE = "include"


class MergeSearch(Protocol):
    """The spec of a study that searches a merge."""

    @property
    def merge(self) -> SearchedMerge: ...

    @property
    def models(self) -> dict[str, str]: ...

    @property
    def fewest_sources(self) -> int:
        """The least number of source models that a candidate is made of."""
        ...


_Spec = TypeVar("_Spec", bound=MergeSearch)


@dataclass(frozen=True)
class SearchedSpace(SearchSpace, Generic[_Spec]):
    """Turns an Optuna trial into a merge.

    Parameters are named `ALIAS.PARAMETER.GROUP`, as in `ja.weight.g0`, or `merge.PARAMETER.GROUP`
    where several source models share one; a range that is a single number is no parameter. Layers
    are grouped from the input on, `g0` with the embeddings and the last group with the final norm
    and the head. With tensor-name filters a tensor belongs to the first filter its name contains,
    else to `other`. Interpolated values are those at `p0`, `p1` and so on along the depth.
    `merge.method` is the method, and `ALIAS.include` whether a source model takes part, where they
    are searched.
    """

    spec: _Spec
    groups: tuple[LayerGroup, ...]
    baseline_name: ClassVar[str] = "uniform merge"
    fewer: ClassVar[str] = "larger layer groups have fewer"

    def ranges(self) -> dict[str, Dimension]:
        """Every parameter the sampler searches, by name, in a fixed order."""
        methods = tuple(method.name for method in self.spec.merge.methods)
        of_the_merge = {METHOD: Choices(methods)} if len(methods) > 1 else {}
        included = dict.fromkeys(self.flags(), Choices((True, False)))
        return {**of_the_merge, **included, **{p.name: p.dimension for p in self.searched_places}}

    def baseline(self) -> Values:
        """The uniform merge as parameters: equal weights that sum to 1, nothing dropped.

        Each value is moved into its range where the spec excludes it. Of several methods it is the
        first, and all source models take part.
        """
        return self.discrete(self.spec.merge.methods[0]) | {
            place.name: place.dimension.clip(self._uniform(place.parameter))
            for place in self.searched_places
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
            alias: self.discrete(methods[0], alias)
            | {
                place.name: place.dimension.clip(self._alone(place.parameter, place.owner == alias))
                for place in self.searched_places
            }
            for alias in self.spec.models
        }

    def starts(self) -> dict[str, Values]:
        """Merges by hand, each once; see `by_hand`. Of several methods by the first."""
        seen, found = {_key(self.baseline())}, dict[str, Values]()
        for merge in merges_by_hand(tuple(self.spec.models)):
            values = self.discrete(self.spec.merge.methods[0], *merge.aliases) | {
                place.name: merge.value_at(place, self._uniform(place.parameter))
                for place in self.searched_places
            }
            if _key(values) not in seen:
                seen.add(_key(values))
                found[merge.name] = values
        return found

    def discrete(self, method: Method, *alone: str) -> Values:
        """The method, and which source models take part: all, or these alone."""
        flags = {flag: not alone or alias in alone for flag, alias in self.flags().items()}
        return {METHOD: method.name, **flags} if len(self.spec.merge.methods) > 1 else {**flags}

    def flags(self) -> dict[str, str]:
        """The names of the parameters that say which source models take part, and their aliases."""
        if self.spec.merge.include is None:
            return {}
        return {f"{alias}.{_INCLUDE}": alias for alias in self.spec.models}

    @cached_property
    def searched_places(self) -> list[Place]:
        return [place for place in self.places.every if not place.dimension.fixed]

    def _uniform(self, parameter: Parameter) -> Value:
        return 1 / len(self.spec.models) if parameter.uniform is None else parameter.uniform

    def _alone(self, parameter: Parameter, is_its_own: bool) -> Value:
        if parameter.alone is None:
            return self._uniform(parameter)
        return parameter.alone[0] if is_its_own else parameter.alone[1]

    def values_from(self, parameters: Values, method: Method, models: Sequence[str]) -> Values:
        """Values of this space, from those of another one by the same method.

        Args:
            parameters: of the other space.
            models: that take part.
        """
        flags = {flag: self.spec.models[alias] in models for flag, alias in self.flags().items()}
        given = self.baseline() | self.discrete(method) | flags
        for place in self.searched_places:
            for found in place.names(self.spec.merge.table.values()):
                if found in parameters:
                    given[place.name] = parameters[found]
        return given

    def values(self, searched: Values) -> Values:
        """Those that the spec fixes, too; what is idle is not among them."""
        places = self.places.of(self.method_of(searched), self.included(searched))
        return {place.name: searched.get(place.name, place.dimension.first) for place in places}

    def method_of(self, values: Values) -> Method:
        """The method that is drawn."""
        return self.spec.merge.table[str(values.get(METHOD, self.spec.merge.methods[0].name))]

    def included(self, values: Values) -> list[str]:
        """The source models that take part: those drawn, and the first others if these are too few.

        So every draw is a merge, with as many source models as its method needs.
        """
        drawn = [alias for flag, alias in self.flags().items() if values.get(flag, True)]
        if not self.flags():
            return list(self.spec.models)
        others = [alias for alias in self.spec.models if alias not in drawn]
        chosen = {*drawn, *others[: max(0, self.spec.fewest_sources - len(drawn))]}
        return [alias for alias in self.spec.models if alias in chosen]

    @cached_property
    def places(self) -> Places:
        return Places(self.spec.merge, tuple(self.spec.models), self.groups)


def _key(values: Values) -> tuple[tuple[str, Value], ...]:
    return tuple(sorted(values.items()))
