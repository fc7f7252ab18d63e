"""What a row of the table of merge methods says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Value = bool | int | float | str
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Parameter:
    """What a study searches of a merge, for each layer group.

    Args:
        name: mergekit's name of it, and the key of the spec.
        description: a sentence about it, for `docs/spec.md`.
        low, high: the range that is searched unless the spec gives one.
        scope: whether each source model has its own, or all models share one.
        bounds: every range must lie within these; any finite range may be given without them.
        uniform: its value where all source models are merged alike; None: 1 over their number.
        alone: its values where one source model is to be the result: that model's, and the others'.
            None: it has no part in that, and is `uniform`.
        given: what mergekit gets, from the values of all parameters of the same source model and
            layer group; the value itself unless given. It keeps what mergekit demands of several
            parameters together, so that no drawn candidate is refused.
    """

    name: str
    description: str
    low: float
    high: float
    scope: Literal["source", "shared"] = "source"
    bounds: tuple[float, float] | None = None
    uniform: bool | float | None = None
    alone: tuple[float, float] | None = None
    given: Callable[[Values], float] | None = None

    def for_mergekit(self, values: Values) -> Value:
        """What mergekit gets, from the values of one source model in one layer group."""
        return values[self.name] if self.given is None else self.given(values)


@dataclass(frozen=True)
class Option:
    """A setting of a merge, which is mergekit's default unless the spec fixes it or searches it.

    Args:
        name: mergekit's name of it, and the key of the spec.
        description: a sentence about it, for `docs/spec.md`.
        default: mergekit's, which holds unless the spec gives one; its type is the option's.
    """

    name: str
    description: str
    default: bool | int | float

    @property
    def searched(self) -> Parameter:
        """The parameter that it is where a spec has it searched; all source models share it."""
        return Parameter(
            self.name,
            self.description,
            low=float(self.default),
            high=float(self.default),
            scope="shared",
            uniform=self.default,
        )


@dataclass(frozen=True)
class Method:
    """A merge method of mergekit.

    A test compares every row with mergekit's own declaration, which takes seconds to import and so
    is not read here.

    Args:
        name: mergekit's.
        parameters: what is searched.
        options: what is searched only if the spec says so.
        without_effect: parameters that mergekit declares for this method and does not use.
        base: whether mergekit needs a base model, takes one, or treats it as any other model.
        sources: the least and the largest number of source models; None: any number.
        work: bytes that mergekit's kernel takes for an element of a float32 tensor beside the
            inputs and as many task vectors as there are source models: in any case, and for each
            source model. What is most among mergekit's methods unless given.
        divides: the option by which mergekit divides by the sum of the weights, 0 or not. Weights
            that are all 0 are then merged as equal ones, so that no drawn candidate is NaN.
    """

    name: str
    parameters: tuple[Parameter, ...]
    options: tuple[Option, ...] = ()
    without_effect: tuple[str, ...] = ()
    base: Literal["required", "optional", "ignored"] = "required"
    sources: tuple[int, int | None] = (1, None)
    work: tuple[int, int] = (40, 17)
    divides: str | None = None

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of the options."""
        return tuple(option.name for option in self.options)

    def parameter(self, name: str) -> Parameter:
        """The parameter of this name.

        Raises:
            KeyError: the method does not have it.
        """
        return {parameter.name: parameter for parameter in self.parameters}[name]
