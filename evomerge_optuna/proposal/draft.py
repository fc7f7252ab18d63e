"""A spec as a person would write it: readable YAML with comments, in the manner of studies/."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge_optuna.plain_yaml import to_yaml

_WIDEST = 100  # characters of a line, where a shorter form can be had
_IN_BLOCKS = ("models", "merge", "tasks")  # whatever their length
_AS_LONG_AS_IT_IS = 10**6


@dataclass(frozen=True)
class Draft:
    """What a spec says, and what its comments say.

    Args:
        content: of the spec, its keys in the order in which they are written.
        head: lines of comment above all.
        notes: comments at the end of a key's line, by the key's path, as `merge.weight`.
        offers: lines of comment after a key's part, by its path: what one may write there instead.
    """

    content: Mapping[str, Any]
    head: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    offers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self) -> str:
        """The file."""
        lines = [*(f"# {line}".rstrip() for line in self.head), *self._mapping(self.content, "", 0)]
        return "\n".join(lines) + "\n"

    def _mapping(self, part: Mapping[str, Any], path: str, depth: int) -> Iterator[str]:
        pad = "  " * depth
        for key, value in part.items():
            place = f"{path}.{key}" if path else key
            line, inner = f"{pad}{_flow(key)}:", pad
            after: list[str] = []
            if isinstance(value, Mapping) and self._is_block(value, place, len(line)):
                after, inner = [*self._mapping(value, place, depth + 1)], f"{pad}  "
            elif _is_list_of_parts(value):
                for item in value:
                    first, *others = self._mapping(item, f"{place}[]", depth + 2)
                    after += [f"{pad}  - {first.lstrip()}", *others]
            else:
                line += f" {_flow(value)}"
            yield from self._with_note(line, pad, place)
            yield from after
            yield from (f"{inner}# {offer}" for offer in self.offers.get(place, ()))

    def _with_note(self, line: str, pad: str, place: str) -> list[str]:
        """The line with its comment at the end, or before it where that is too wide."""
        if place not in self.notes:
            return [line]
        whole = f"{line}  # {self.notes[place]}"
        return [whole] if len(whole) <= _WIDEST else [f"{pad}# {self.notes[place]}", line]

    def _is_block(self, value: Mapping[str, Any], place: str, before: int) -> bool:
        if not value:
            return False
        has_words = any(p.startswith(f"{place}.") for p in (*self.notes, *self.offers))
        nested = any(isinstance(inner, Mapping) for inner in value.values())
        too_wide = before + len(_flow(value)) + 2 > _WIDEST
        return place in _IN_BLOCKS or has_words or place in self.offers or nested or too_wide


def _is_list_of_parts(value: Any) -> bool:
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(part, Mapping) and part for part in value)


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_in_flow(k)}: {_in_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_in_flow, value)) + "]"
    plain = _dumped(value)
    return _dumped(value, '"') if "\n" in plain or plain.startswith("'") else plain


def _in_flow(value: Any) -> str:
    """A value within braces or brackets, where commas and brackets part values."""
    if isinstance(value, Mapping | list | tuple) or not isinstance(value, str):
        return _flow(value)
    within = to_yaml([value], default_flow_style=True, width=_AS_LONG_AS_IT_IS).strip()[1:-1]
    return _dumped(value, '"') if "\n" in within or within.startswith("'") else within


def _dumped(value: Any, style: str | None = None) -> str:
    text = to_yaml(value, default_style=style, width=_AS_LONG_AS_IT_IS)
    return text.removesuffix("...\n").strip()
