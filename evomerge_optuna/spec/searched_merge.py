"""What every kind of merge has in its spec: a method, or several, and what of it is searched.

The table of methods decides the keys: a row's parameters and options are keys of the spec.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Tag,
    create_model,
    model_serializer,
    model_validator,
)

from evomerge_optuna.methods import Method, Parameter, Value
from evomerge_optuna.spec.dimension import DIMENSIONS, Dimension, Range
from evomerge_optuna.spec.part import Integer, Strict

_Part = TypeVar("_Part", bound="SearchedMerge")

GROUPS = ("layer_group_size", "interpolate", "layer_groups", "include")
_FIRST_KEYS = ("layer_group_size", "layer_groups")  # stored in any case, as they were at first


def _check_several(methods: tuple[str, ...]) -> tuple[str, ...]:
    if len(methods) < 2:
        raise ValueError("write two or more methods, or one without a list")
    return methods


def _one_or_several(name: Any) -> Any:
    """Discriminated, so that an error is about what was written, not about both."""
    several = Annotated[tuple[name, ...], AfterValidator(_check_several)]
    return Annotated[
        Annotated[name, Tag("(one)")] | Annotated[several, Tag("(list)")],
        Discriminator(lambda value: "(list)" if isinstance(value, list | tuple) else "(one)"),
    ]


def with_keys_of(
    methods: Mapping[str, Method], description: str
) -> Callable[[type[_Part]], type[_Part]]:
    """Gives a part of the spec a table of methods: a key for each parameter and option of them.

    Args:
        description: of the key `method`.
    """
    keys: dict[str, Any] = {
        "method": (
            _one_or_several(Literal[tuple(methods)]),
            Field(description=description),
        )
    }
    descriptions: dict[str, list[str]] = defaultdict(list)
    for method in methods.values():
        for parameter in method.parameters:
            descriptions[parameter.name].append(parameter.description)
            keys[parameter.name] = DIMENSIONS[float] | None
        for option in method.options:
            descriptions[option.name].append(option.description)
            keys[option.name] = DIMENSIONS[type(option.default)] | None
    for name, found in descriptions.items():
        keys[name] = keys[name], Field(default=None, description=" ".join(dict.fromkeys(found)))

    def with_keys(part: type[_Part]) -> type[_Part]:
        found = create_model(
            part.__name__, __base__=part, __module__=part.__module__, __doc__=part.__doc__, **keys
        )
        found.table = methods
        return found

    return with_keys


class SearchedMerge(Strict):
    """A merge by methods of a table, of which parameters are searched for groups of layers.

    Attributes:
        table: the methods that it may have, by their names.
        keys_of_groups: the keys that say which tensors share their parameters.
        always_stored: options that the stored spec has for every method.
    """

    table: ClassVar[Mapping[str, Method]] = {}
    keys_of_groups: ClassVar[tuple[str, ...]] = GROUPS
    always_stored: ClassVar[tuple[str, ...]] = ()

    method: str | tuple[str, ...]
    """The merge method, or several of which one is chosen."""
    layer_group_size: Annotated[Integer, Field(ge=1)] | None = None
    """The number of neighbouring layers that share their parameters. By default all layers do."""
    interpolate: Annotated[Integer, Field(ge=2)] | None = None
    """The number of points along the depth, from the first layer to the last, instead of layer
    groups. A range is searched at each point, and the layers in between are interpolated."""
    layer_groups: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Groups by parts of tensor names, for example `[self_attn, mlp]`. All other tensors form one
    more group. With `layer_group_size` every group of layers has these groups; with `interpolate`
    each has values of its own along the depth."""
    include: Literal["search"] | None = None
    """Write `search` to have it searched which source models take part at all. By default all do.
    One always does."""

    @model_validator(mode="before")
    @classmethod
    def _with_default_ranges(cls, content: Any) -> object:
        """Gives every parameter of the method its default range where the spec gives none."""
        named = content.get("method") if isinstance(content, dict) else None
        names = named if isinstance(named, list | tuple) else [named]
        methods = [cls.table[name] for name in names if isinstance(name, str) and name in cls.table]
        return content if len(methods) < len(names) else defaults_of(methods) | content

    @model_validator(mode="after")
    def _only_what_the_methods_have(self) -> "SearchedMerge":
        names = [method.name for method in self.methods]
        one = len(names) == 1
        who = f"{names[0]} has" if one else f"{', '.join(names[:-1])} and {names[-1]} have"
        if len(set(names)) < len(names):
            raise ValueError("method: a method is named twice")
        for name, kind, every in (
            *((name, "parameter", self.searched) for name in self.all_parameters()),
            *((name, "option", self.fixed) for name in self.all_options()),
        ):
            is_given = getattr(self, name) is not None or (
                kind == "parameter" and name in self.model_fields_set
            )
            if is_given and name not in every:
                known = ", ".join(every) or "none"
                raise ValueError(
                    f"{who} no {kind} '{name}'; {'it has' if one else 'they have'} {known}"
                )
        for parameter in self._declared:
            self._check(parameter)
        return self

    def _check(self, parameter: Parameter) -> None:
        """Refuses a dimension that the parameter cannot have."""
        name, bounds, given = parameter.name, parameter.bounds, getattr(self, parameter.name)
        meanings = {p.description for p in self._declared if p.name == name}
        if given is not None and len(meanings) > 1:
            raise ValueError(
                f"{name}: has not the same meaning for all of {', '.join(self._having(name))}; "
                "leave it out, or search one of them alone"
            )
        if given is None and len(meanings) == 1:
            raise ValueError(f"{name}: write a number or [low, high]")
        if given is None or bounds is None or bounds[0] <= given.low <= given.high <= bounds[1]:
            return
        what = "range" if isinstance(given, Range) else "choices"
        raise ValueError(f"{name}: the {what} must lie within [{bounds[0]:g}, {bounds[1]:g}]")

    @model_validator(mode="after")
    def _one_kind_of_groups(self) -> "SearchedMerge":
        if self.layer_group_size is not None and self.interpolate is not None:
            raise ValueError("give layer_group_size or interpolate, not both")
        parameters = [p for method in self.methods for p in self.parameters_of(method)]
        if self.interpolate is not None and not any(
            self.dimension_of(p).is_continuous for p in parameters
        ):
            raise ValueError(
                "interpolate: there is no range between whose values one could interpolate; give a "
                "parameter a range [low, high]"
            )
        if self.layer_groups is not None:
            if not self.layer_groups:
                raise ValueError("layer_groups is empty; name tensor filters, as [self_attn, mlp]")
            if len(set(self.layer_groups)) < len(self.layer_groups):
                raise ValueError("layer_groups names a filter twice")
            if "other" in self.layer_groups:
                raise ValueError(
                    "layer_groups: 'other' is the group of all tensors no filter matches; leave "
                    "it out"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_foreign_keys(
        self, dump: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, object]:
        """Leaves out what the method does not have, since a spec that gives it is refused."""
        content = dump(self)
        given = {name for name in self.searched if getattr(self, name) is not None}
        foreign = set(self.all_parameters()) - given
        unset = {o for o in self.all_options() if getattr(self, o) is None}
        new = {n for n in self.keys_of_groups if n not in _FIRST_KEYS and not content.get(n)}
        defaults = {n for n, d in defaults_of(self.methods).items() if getattr(self, n) == d}
        left_out = foreign | (unset - set(self.always_stored)) | new
        left_out |= defaults if info.exclude_defaults else set()
        order = ("space", "method", *self.searched, *self.keys_of_groups, *self.fixed, *content)
        return {n: content[n] for n in dict.fromkeys(order) if n in content and n not in left_out}

    @property
    def methods(self) -> tuple[Method, ...]:
        """The rows of the method, or of the methods of which one is chosen."""
        names = (self.method,) if isinstance(self.method, str) else self.method
        return tuple(self.table[name] for name in names)

    @property
    def in_words(self) -> str:
        """The name of the method, or of those of which one is chosen."""
        return _either([method.name for method in self.methods])

    def parameters_of(self, method: Method) -> tuple[Parameter, ...]:
        """The method's parameters, fixed ones too, and those of its options that are searched."""
        given = ((option, getattr(self, option.name)) for option in method.options)
        searched = [option.searched for option, d in given if d is not None and not d.fixed]
        return (*method.parameters, *searched)

    def options_of(self, method: Method) -> dict[str, Value]:
        """The method's options that the spec fixes."""
        given = {name: getattr(self, name) for name in method.fixed}
        return {name: d.first for name, d in given.items() if d is not None and d.fixed}

    def dimension_of(self, parameter: Parameter) -> Dimension:
        """What the spec has a parameter be, or an option that is searched."""
        given: Dimension | None = getattr(self, parameter.name)
        return _default_of(parameter) if given is None else given

    @property
    def _declared(self) -> list[Parameter]:
        return [parameter for method in self.methods for parameter in method.parameters]

    @property
    def block_filters(self) -> tuple[str, ...]:
        """The blocks of a pipeline's denoiser that are groups of their own."""
        return ()

    @classmethod
    def all_parameters(cls) -> tuple[str, ...]:
        """Names of the parameters that any method of the table has."""
        return tuple(dict.fromkeys(p for row in cls.table.values() for p in row.searched))

    @classmethod
    def all_options(cls) -> tuple[str, ...]:
        """Names of the options that any method of the table has."""
        return tuple(dict.fromkeys(o for row in cls.table.values() for o in row.fixed))

    @property
    def searched(self) -> list[str]:
        """Names of the parameters that the spec's methods have."""
        return list(dict.fromkeys(name for method in self.methods for name in method.searched))

    @property
    def fixed(self) -> list[str]:
        """Names of the options that the spec's methods have."""
        return list(dict.fromkeys(name for method in self.methods for name in method.fixed))

    def _having(self, parameter: str) -> list[str]:
        return [method.name for method in self.methods if parameter in method.searched]


def defaults_of(methods: Sequence[Method]) -> dict[str, Range]:
    """The default ranges of all parameters whose name means one thing to all of these methods."""
    found = [parameter for method in methods for parameter in method.parameters]
    meanings = {(parameter.name, parameter.description) for parameter in found}
    unclear = {n for n, count in Counter(name for name, _ in meanings).items() if count > 1}
    return {p.name: _default_of(p) for p in found if p.name not in unclear}


def _default_of(parameter: Parameter) -> Range:
    return Range(low=parameter.low, high=parameter.high)


def _either(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
