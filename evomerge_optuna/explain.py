"""What is wrong with content that was read, in one line: where, what, and the cure."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

_LONGEST = 1000  # characters of a message
_LONGEST_PART = 100  # of a key or a value in it


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first thing that is wrong with what should have been of this kind."""
    errors = error.errors(include_url=False)
    first = errors[0]
    if first["type"] == "missing":  # misspelt, perhaps
        unknown = (e for e in errors if e["type"] == "extra_forbidden")
        first = next((e for e in unknown if _is_misspelt(e["loc"], first["loc"])), first)
    # In parentheses pydantic says which form of a value it took.
    location = [part for part in first["loc"] if not str(part).startswith("(")]
    keys, _ = _walked(kind, location)
    parts = [f"[{p}]" if isinstance(p, int) else f".{one_line(p, _LONGEST_PART)}" for p in keys]
    path = "".join(parts).lstrip(".")
    return one_line(f"{path}{_complaint(first, bool(path), kind, location)}")


def counted(count: int, what: str) -> str:
    """'1 trial', '2 trials': a number of things whose plural ends in s."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def one_line(text: object, longest: int = _LONGEST) -> str:
    """The text without line ends and what else does not print, cut where it is too long."""
    line = " ".join(str(text).split())
    line = line if len(line) <= longest else f"{line[:longest]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


def value(given: Any) -> str:
    """A value as a message names it."""
    if isinstance(given, dict | list):
        return "a mapping" if isinstance(given, dict) else "a list"
    try:
        return one_line(repr(given), _LONGEST_PART)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a huge number"


def _complaint(first: Any, has_path: bool, kind: type[BaseModel], location: list[int | str]) -> str:
    given = first.get("input")
    if first["type"] == "extra_forbidden":
        return f": unknown key{_suggestion(kind, location)}"
    if first["type"] == "missing":
        return ": missing; add it"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        if not has_path:
            return message
        # A validator of the whole part names the key itself.
        return f"{'.' if re.match('[a-z_]+: ', message) else ': '}{message}"
    if first["type"] == "union_tag_not_found":
        return f".type: missing; write type: {_listed(_types_at(kind, location))}"
    if first["type"] == "union_tag_invalid":
        known = [repr(name) for name in _types_at(kind, location)]
        meant = did_you_mean(given["type"], _types_at(kind, location))
        return f".type: should be {_listed(known)}, not {value(given['type'])}{meant}"
    message = first["msg"].replace("Input should be", "should be")
    message = re.sub("a valid dictionary.*", "a mapping", message).replace("valid tuple", "list")
    message = re.sub("a valid boolean.*", "true or false", message)
    meant = ""
    if first["type"] == "literal_error":
        meant = did_you_mean(given, re.findall(r"'([^']+)'", message))
    return f": {message}, not {value(given)}{meant}"


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """What ends a message about a name that nothing has; '' if none of the known is near it."""
    close = difflib.get_close_matches(str(given), list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _is_misspelt(unknown: tuple[int | str, ...], missing: tuple[int | str, ...]) -> bool:
    close = difflib.get_close_matches(str(unknown[-1]), [str(missing[-1])])
    return unknown[:-1] == missing[:-1] and bool(close)


def _suggestion(kind: type[BaseModel], location: list[int | str]) -> str:
    known = sorted(_keys_at(kind, location[:-1]))
    return did_you_mean(location[-1], known) or f"; known keys are {', '.join(known)}"


def _types_at(kind: type[BaseModel], location: list[int | str]) -> list[str]:
    """The values that `type` may have in the part at this path."""
    return [name for part in _parts_at(kind, location) for name in _types_of(part)]


def _types_of(part: type[BaseModel]) -> list[str]:
    field = part.model_fields.get("type")
    return [] if field is None else [str(name) for name in get_args(field.annotation)]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _keys_at(kind: type[BaseModel], location: list[int | str]) -> set[str]:
    """The keys of the part that is at this path of something of this kind."""
    return {name for name, _ in _fields(_parts_at(kind, location))}


def _parts_at(kind: type[BaseModel], location: list[int | str]) -> list[type[BaseModel]]:
    """What may be at this path."""
    return _walked(kind, location)[1]


def _walked(
    kind: type[BaseModel], location: list[int | str]
) -> tuple[list[int | str], list[type[BaseModel]]]:
    """The keys of pydantic's path as the user wrote them, and what may be at its end.

    Where a part has several types, as a task or a scorer, pydantic puts in the type that it took.
    """
    keys, parts, names = list[int | str](), [kind], iter(location)
    for name in names:
        # A type first: `image` is a type of task, and a key of another.
        if of_type := [part for part in parts if name in _types_of(part) and len(parts) > 1]:
            parts = of_type
            continue
        keys.append(name)
        if field := next((f for f_name, f in _fields(parts) if f_name == name), None):
            parts = _models_in(field.annotation)
            if get_origin(field.annotation) is dict and (chosen := next(names, None)) is not None:
                keys.append(chosen)  # a name that the user chose
    return keys, parts


def _fields(parts: list[type[BaseModel]]) -> list[tuple[str, Any]]:
    return [(f.alias or name, f) for part in parts for name, f in part.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def kind_and_message(error: BaseException, longest: int = _LONGEST) -> str:
    """An error that any code may raise, as `ValueError: message`."""
    return one_line(f"{type(error).__name__}: {error}", longest)


def first_line(error: BaseException) -> str:
    """The first line of what a library says; its error's name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
