"""What a parameter of a merge may be: a fixed value, a range, or one of several choices."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

from evomerge_optuna.methods import Value


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; one number, if they are equal.

    Args:
        log: are their logarithms searched alike, not the numbers themselves?
        integer: are only integers meant?

    Raises:
        ValueError: the range is empty, an end is not finite, or a logarithm has none.
    """

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("both ends must be finite")
        if self.low > self.high:
            raise ValueError(
                f"the range [{self.low:g}, {self.high:g}] is empty; "
                f"write [{self.high:g}, {self.low:g}]"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"log: the range must begin above 0, not at {self.low:g}")

    @property
    def fixed(self) -> bool:
        """Is it one number, which nothing searches?"""
        return self.low == self.high

    @property
    def is_continuous(self) -> bool:
        """Does it have a value between any two of its values?"""
        return not (self.fixed or self.integer)

    @property
    def first(self) -> float:
        """The only value of what is fixed."""
        return self.low

    def clip(self, value: Value) -> float:
        """The value, moved into the range where it lies outside."""
        number = self.low if isinstance(value, str) else min(max(value, self.low), self.high)
        return round(number) if self.integer else number

    def has(self, value: object) -> bool:
        """May the parameter have this value?"""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        what = "integer" if self.integer else "number"
        return f"{what} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choices:
    """Values of which one is chosen; what is fixed has but one.

    Raises:
        ValueError: there are none, or one is named twice.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("there are no choices")
        if len(set(self.values)) < len(self.values):
            raise ValueError("a choice is named twice")

    @property
    def fixed(self) -> bool:
        """Is there one value, which nothing searches?"""
        return len(self.values) == 1

    @property
    def is_continuous(self) -> bool:
        """Does it have a value between any two of its values?"""
        return False

    @property
    def first(self) -> Value:
        """The only value of what is fixed."""
        return self.values[0]

    @property
    def low(self) -> float:
        """The smallest number."""
        return min(self._numbers)

    @property
    def high(self) -> float:
        """The largest number."""
        return max(self._numbers)

    @property
    def _numbers(self) -> list[float]:
        return [value for value in self.values if not isinstance(value, str)]

    def clip(self, value: Value) -> Value:
        """The value if it is a choice, else the nearest number, else the first choice.

        1 is the choice true, if that is what the spec has.
        """
        if value in self.values:
            return self.values[self.values.index(value)]
        if isinstance(value, str) or not self._numbers:
            return self.first
        return min(self._numbers, key=lambda choice: abs(choice - value))

    def has(self, value: object) -> bool:
        """May the parameter have this value?"""
        return value in self.values

    def __str__(self) -> str:
        return f"choice of {', '.join(map(_in_yaml, self.values))}"


Dimension = Range | Choices


def _number(value: object, kind: type) -> float:
    """A number of the parameter's kind."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(_WANTED[kind])
    if kind is int and value != math.floor(value):
        raise ValueError(f"{value:g} is no integer")
    try:
        return int(value) if kind is int else float(value)
    except OverflowError as error:
        raise ValueError("is too large a number") from error


def _finite(value: object, kind: type) -> float:
    number = _number(value, kind)
    if not math.isfinite(number):
        raise ValueError("must be finite")
    return number


def _value(value: object, kind: type) -> Value:
    if kind is not bool:
        return _finite(value, kind)
    if not isinstance(value, bool):
        raise ValueError(_WANTED[bool])
    return value


def _choices(values: Iterable[object], kind: type) -> Choices:
    found = tuple(_value(value, kind) for value in values)
    if len(found) == 1:
        raise ValueError("one value is no choice; write it without a list")
    return Choices(found)


def _range(ends: Sequence[object], kind: type, *, log: bool = False) -> Range:
    low, high = (_number(end, kind) for end in ends)
    found = Range(low, high, log, integer=kind is int)
    return replace(found, log=False) if found.fixed else found


def _dimension(kind: type) -> Callable[[Any], Dimension]:
    def read(value: Any) -> Dimension:
        match value:
            case Range() | Choices():
                return value
            case {"log": [_, _] as ends} if len(value) == 1 and kind is not bool:
                return _range(ends, kind, log=True)
            case {"choices": [*values]} if len(value) == 1:
                return _choices(values, kind)
            case {"low": low, "high": high} if len(value) == 2 and kind is not bool:
                return _range([low, high], kind)
            case [_, _] if kind is not bool:
                return _range(value, kind)
            case [_, _, *_]:
                return _choices(value, kind)
            case list() | tuple() | dict():
                raise ValueError(_WANTED[kind])
        if kind is bool:
            return Choices((_value(value, kind),))
        number = _finite(value, kind)
        return Range(number, number, integer=kind is int)

    return read


def _written(found: Dimension) -> object:
    """As a spec has it: two numbers alone are a range, so two that are choices say so."""
    if found.fixed:
        return found.first
    if isinstance(found, Range):
        ends = [found.low, found.high]
        return {"log": ends} if found.log else ends
    values = list(found.values)
    if len(values) == 2 and not isinstance(values[0], bool):
        return {"choices": values}
    return values


def _in_yaml(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value}"


_ONE_OF = "[low, high], {log: [low, high]} or {choices: [...]}"
_WANTED: dict[type, str] = {
    float: f"write a number, {_ONE_OF}",
    int: f"write an integer, {_ONE_OF}",
    bool: "write true, false or [true, false]",
}

_SERIALIZED = PlainSerializer(_written)

DIMENSIONS: dict[type, Any] = {
    float: Annotated[Range | Choices, PlainValidator(_dimension(float)), _SERIALIZED],
    int: Annotated[Range | Choices, PlainValidator(_dimension(int)), _SERIALIZED],
    bool: Annotated[bool | Choices, PlainValidator(_dimension(bool)), _SERIALIZED],
}
"""The type of a spec's key, by the type of the parameter's values."""
