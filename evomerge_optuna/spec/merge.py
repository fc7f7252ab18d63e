"""How source models are merged, and what of it is searched."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    create_model,
    model_serializer,
    model_validator,
)

from evomerge_optuna.methods import METHODS, Method, Parameter, Value
from evomerge_optuna.recipes.merge import Fused
from evomerge_optuna.spec.dimension import DIMENSIONS, Dimension, Range
from evomerge_optuna.spec.part import DTypeName, Integer, Strict

_Part = TypeVar("_Part", bound=Strict)

# The spec that is stored with a study has these for every method.
_ALWAYS_STORED = ("normalize", "int8_mask", "lambda")


def _with_keys_of(methods: Mapping[str, Method]) -> Callable[[type[_Part]], type[_Part]]:
    """Adds a key for every parameter and option that a method has."""
    keys: dict[str, Any] = {
        "method": (Literal[tuple(methods)], Field(description="mergekit's merge method."))
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
        return create_model(
            part.__name__, __base__=part, __module__=part.__module__, __doc__=part.__doc__, **keys
        )

    return with_keys


@_with_keys_of(METHODS)
class MergeSpec(Strict):
    """How the source models are merged, and what of it is searched.

    The table above says which parameters and options a method has, the ranges in which parameters
    are searched unless given, and the default values of options. Each of them takes

    - a number, or `true` or `false`, which is fixed
    - `[low, high]`, which is searched: any number of the range
    - `{log: [low, high]}`, which is searched by its logarithm, for what may be small by far
    - choices, of which one is searched: `[true, false]`, three or more numbers as `[0, 0.5, 1]`, or
      `{choices: [0.5, 1]}`, since two numbers alone are a range
    """

    method: str
    """mergekit's merge method."""
    layer_group_size: Annotated[Integer, Field(ge=1)] | None = None
    """The number of neighbouring layers that share their parameters. By default all layers do."""
    layer_groups: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    """Groups by parts of tensor names instead, for example `[self_attn, mlp]`. All other tensors
    form one more group."""
    blocks: bool | tuple[Annotated[str, Field(min_length=1)], ...] = False
    """Groups by the blocks of a pipeline's denoiser instead: `true` for all of them, or their
    names, for example `[down_blocks.0, mid_block]`. All other tensors form one more group."""
    components: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """What is merged of pipelines, for example `[unet, text_encoder]`. By default the denoiser
    alone."""
    after: Fused | None = None
    """A LoRA that is fused into a merge of pipelines once it is made, for example
    `{lora: ./four_steps.safetensors, scale: 1}`."""
    dtype: DTypeName | None = None
    """The dtype in which the merge is made and kept. The default is the models' own."""
    tokenizer_source: Annotated[str, Field(min_length=1)] | None = None
    """The vocabulary of the merge. It is needed where the models' vocabularies differ.

    `base`, `union`, or the name of one of `models`.
    """
    chat_template: Annotated[str, Field(min_length=1)] | None = None
    """The chat template of the merge. The default is that of its tokenizer.

    `auto` takes the template that most of the models have. Otherwise write the name of one of
    mergekit's, for example `chatml`, or the template itself.
    """

    @model_validator(mode="before")
    @classmethod
    def _with_default_ranges(cls, content: Any) -> object:
        """Gives every parameter of the method its default range where the spec gives none."""
        method = content.get("method") if isinstance(content, dict) else None
        if not isinstance(method, str) or method not in METHODS:
            return content
        return {p.name: _default_of(p) for p in METHODS[method].parameters} | content

    @model_validator(mode="after")
    def _only_what_the_method_has(self) -> "MergeSpec":
        method = self.declared
        for name in _PARAMETERS:
            if name in self.model_fields_set and name not in method.searched:
                known = ", ".join(method.searched)
                raise ValueError(f"{method.name} has no parameter '{name}'; it has {known}")
        for name in _OPTIONS:
            if self.dimension(name) is not None and name not in method.fixed:
                known = ", ".join(method.fixed) or "none"
                raise ValueError(f"{method.name} has no option '{name}'; it has {known}")
        for parameter in method.parameters:
            given, bounds = self.dimension(parameter.name), parameter.bounds
            if given is None:
                raise ValueError(f"{parameter.name}: write a number or [low, high]")
            if bounds is not None and not bounds[0] <= given.low <= given.high <= bounds[1]:
                what = "range" if isinstance(given, Range) else "choices"
                raise ValueError(
                    f"{parameter.name}: the {what} must lie within [{bounds[0]:g}, {bounds[1]:g}]"
                )
        return self

    @model_validator(mode="after")
    def _one_kind_of_groups(self) -> "MergeSpec":
        groups = {n: getattr(self, n) for n in ("layer_group_size", "layer_groups", "blocks")}
        if len(given := [n for n, value in groups.items() if value not in (None, False)]) > 1:
            raise ValueError(f"give {' or '.join(given)}, not both")
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
        method = self.declared
        foreign = set(_PARAMETERS) - set(method.searched)
        unset = {o for o in _OPTIONS if self.dimension(o) is None} - set(_ALWAYS_STORED)
        defaults = {p.name for p in method.parameters if self.dimension(p.name) == _default_of(p)}
        left_out = foreign | unset | (defaults if info.exclude_defaults else set())
        groups = ("layer_group_size", "layer_groups", "blocks")
        order = dict.fromkeys(("method", *method.searched, *groups, *method.fixed, *content))
        return {n: content[n] for n in order if n in content and n not in left_out}

    @property
    def declared(self) -> Method:
        """The method's row of the table."""
        return METHODS[self.method]

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters this method searches."""
        return self.declared.searched

    def dimension(self, name: str) -> Dimension | None:
        """What the spec says of a parameter or option; None: the method's default holds."""
        found: Dimension | None = getattr(self, name)
        return found

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The method's parameters, fixed ones too, and those options that are searched."""
        options = [o for o in self.declared.options if not _is_fixed(self.dimension(o.name))]
        return (*self.declared.parameters, *(option.searched for option in options))

    @property
    def options(self) -> dict[str, Value]:
        """The options that the spec fixes."""
        given = {name: self.dimension(name) for name in self.declared.fixed}
        return {name: d.first for name, d in given.items() if d is not None and d.fixed}


def _is_fixed(dimension: Dimension | None) -> bool:
    return dimension is None or dimension.fixed


def _default_of(parameter: Parameter) -> Range:
    return Range(low=parameter.low, high=parameter.high)


_PARAMETERS = tuple(dict.fromkeys(p for row in METHODS.values() for p in row.searched))
_OPTIONS = tuple(dict.fromkeys(o for row in METHODS.values() for o in row.fixed))
