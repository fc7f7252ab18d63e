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
            note = f"  # {self.notes[place]}" if place in self.notes else ""
            if isinstance(value, Mapping) and self._is_block(value, place, len(pad) + len(key)):
                yield f"{pad}{key}:{note}"
                yield from self._mapping(value, place, depth + 1)
            elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
                yield f"{pad}{key}:{note}"
                for item in value:
                    first, *others = self._mapping(item, f"{place}[]", depth + 2)
                    yield f"{pad}  - {first.lstrip()}"
                    yield from others
            else:
                yield f"{pad}{_flow(key)}: {_flow(value)}{note}"
            inner = pad if not isinstance(value, Mapping) else f"{pad}  "
            yield from (f"{inner}# {line}" for line in self.offers.get(place, ()))

    def _is_block(self, value: Mapping[str, Any], place: str, before: int) -> bool:
        if not value:
            return False
        has_words = any(p.startswith(f"{place}.") for p in (*self.notes, *self.offers))
        nested = any(isinstance(inner, Mapping) for inner in value.values())
        too_wide = before + len(_flow(value)) + 2 > _WIDEST
        return place in _IN_BLOCKS or has_words or place in self.offers or nested or too_wide


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        style = '"' if "\n" in value else None
        text = to_yaml(value, default_style=style, width=_AS_LONG_AS_IT_IS)
        return text.removesuffix("...\n").strip()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(k)}: {_in_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_in_flow, value)) + "]"
    return to_yaml(value).removesuffix("...\n").strip()


def _in_flow(value: Any) -> str:
    """A value within braces or brackets, where commas and brackets part values."""
    if isinstance(value, str) and any(character in value for character in ",[]{}"):
        return to_yaml(value, default_style='"', width=_AS_LONG_AS_IT_IS).strip()
    return _flow(value)
