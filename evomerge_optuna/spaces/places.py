"""The places of a merge's parameters: of which model, in which group of layers, at which depth.

Where the merge method itself is searched, every method's parameters have their places; those of
the methods that were not drawn are idle. Samplers then see one space whatever is drawn, as CatCMA
and a Gaussian process need it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from evomerge_optuna.methods import Method, Parameter
from evomerge_optuna.spaces.groups import LayerGroup
from evomerge_optuna.spaces.space import Values
from evomerge_optuna.spec import Dimension, SearchedMerge

OF_THE_MERGE = "merge"  # in the place of an alias, where source models share a parameter


@dataclass(frozen=True)
class Place:
    """A parameter of one source model, or of all, in one layer group.

    Args:
        owner: an alias, or `OF_THE_MERGE`.
        key: the parameter's name in this space; see `Places.key`.
        point: the number of the point along the depth, where values in between are interpolated.
    """

    owner: str
    key: str
    parameter: Parameter
    dimension: Dimension
    group: LayerGroup
    point: int | None = None

    @property
    def name(self) -> str:
        """As the sampler knows it."""
        return self._named(self.key)

    def names(self, methods: Iterable[Method]) -> Iterator[str]:
        """As samplers of other studies may know it, too, which have other methods beside its own.

        The names are those that `Places.key` gives; what means another thing has none of them.

        Args:
            methods: all that there are.
        """
        alike = {
            f"{method.name}-{self.parameter.name}"
            for method in methods
            for other in (*method.parameters, *(option.searched for option in method.options))
            if (other.name, other.description) == (self.parameter.name, self.parameter.description)
        }
        yield from map(self._named, sorted({self.parameter.name, *alike} - {self.key}))
        yield self.name

    def _named(self, key: str) -> str:
        return f"{self.owner}.{key}.{self.group.at(self.point)}"


@dataclass(frozen=True)
class Places:
    """All places of a merge."""

    merge: SearchedMerge
    aliases: tuple[str, ...]
    groups: tuple[LayerGroup, ...]

    @cached_property
    def every(self) -> tuple[Place, ...]:
        """Each place once, in a fixed order."""
        found = {
            place.name: place
            for group in self.groups
            for method in self.merge.methods
            for place in self._of(method, self.aliases, [group])
        }
        return tuple(found.values())

    def of(self, method: Method, aliases: Sequence[str]) -> Iterator[Place]:
        """Those that a merge of these source models by this method has."""
        return self._of(method, aliases, self.groups)

    def values_at(
        self, method: Method, owner: str, group: LayerGroup, point: int | None, values: Values
    ) -> Values:
        """What the tensors of one group of a source model are merged with, by parameter.

        Args:
            owner: the source model; what is shared is here for each.
            point: along the depth; what does not change with it is here for every point.
        """
        found = {}
        for parameter in self.merge.parameters_of(method):
            (whose,) = owners(method, parameter, [owner])
            own = point if point in self.points(parameter) else None
            found[parameter.name] = values[self._place(method, whose, parameter, group, own).name]
        return found

    def points(self, parameter: Parameter) -> Sequence[int | None]:
        """The points along the depth that have values of their own; None where there are none."""
        if self.merge.interpolate is None or not self.merge.dimension_of(parameter).is_continuous:
            return [None]
        return list(range(self.merge.interpolate))

    def key(self, method: Method, parameter: Parameter) -> str:
        """A parameter's name in this space.

        Its own where there is one method, or where all that have one of this name mean the same and
        are several, as by `weight` and `density`; otherwise named after the method as well.
        """
        methods = self.merge.methods
        if len(methods) == 1:
            return parameter.name
        having = [
            (each, other)
            for each in methods
            for other in self.merge.parameters_of(each)
            if other.name == parameter.name
        ]
        alike = [each for each, other in having if other.description == parameter.description]
        if len(alike) == len(having) > 1:
            return parameter.name
        return f"{alike[0].name}-{parameter.name}"

    def _of(
        self, method: Method, aliases: Sequence[str], groups: Sequence[LayerGroup]
    ) -> Iterator[Place]:
        parameters = self.merge.parameters_of(method)
        each = [p for p in parameters if p.scope == "source"]
        shared = [p for p in parameters if p.scope == "shared"]
        for group in groups:
            for owner in aliases:
                for parameter in each:
                    yield from self._along(method, owner, parameter, group)
            for parameter in shared:
                for owner in owners(method, parameter, aliases):
                    yield from self._along(method, owner, parameter, group)

    def _along(
        self, method: Method, owner: str, parameter: Parameter, group: LayerGroup
    ) -> Iterator[Place]:
        for point in self.points(parameter):
            yield self._place(method, owner, parameter, group, point)

    def _place(
        self,
        method: Method,
        owner: str,
        parameter: Parameter,
        group: LayerGroup,
        point: int | None,
    ) -> Place:
        key, dimension = self.key(method, parameter), self.merge.dimension_of(parameter)
        return Place(owner, key, parameter, dimension, group, point)


def owners(method: Method, parameter: Parameter, aliases: Sequence[str]) -> list[str]:
    """Who has the parameter; what is shared is one source model's, if there can be but one."""
    if parameter.scope == "source" or method.sources == (1, 1):
        return list(aliases)
    return [OF_THE_MERGE]
