"""Reference pages from the code itself: a line with `<!-- keys -->`, `<!-- methods -->`,
`<!-- commands -->` or `<!-- functions -->` is replaced by what the package has."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel, ByteSize, JsonValue
from pydantic_core import PydanticUndefined

from evomerge_optuna import api
from evomerge_optuna.cli import main
from evomerge_optuna.methods import ADAPTER_METHODS, METHODS, Method
from evomerge_optuna.spec import (
    AdapterStudySpec,
    Choices,
    JointStudySpec,
    ParameterStudySpec,
    Range,
    StackStudySpec,
    StagedStudySpec,
    StudySpec,
)
from evomerge_optuna.spec.part import Strict

_STAGES: dict[type[BaseModel], str] = {
    StudySpec: "Every study",
    ParameterStudySpec: "Stage ps",
    AdapterStudySpec: "Stage ps in the space of adapters",
    StackStudySpec: "Stage dfs",
    JointStudySpec: "Stage ps+dfs with a merge of its own",
    StagedStudySpec: "Stage ps+dfs on another study's merge",
}

_WORDS: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    JsonValue: "any value",
    ByteSize: "size",
    Range: "number or [low, high]",
    Choices: "choices",
}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_LARGEST = 2**62  # a bound beyond it is the database's, of no interest here


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the lines with marks; what else they say is for those who read the source."""
    marks: dict[str, Callable[[], Iterator[str]]] = {
        "<!-- keys -->": _keys,
        "<!-- methods -->": _methods,
        "<!-- commands -->": lambda: _commands(main, "evomerge-optuna"),
        "<!-- functions -->": _functions,
    }
    found = (next((mark for mark in marks if mark in line), None) for line in markdown.split("\n"))
    lines = zip(markdown.split("\n"), found, strict=True)
    return "\n".join(line if mark is None else "\n".join(marks[mark]()) for line, mark in lines)


def _keys() -> Iterator[str]:
    """A section for each stage, and for each part of a spec in the order in which keys name it."""
    todo = dict(_STAGES)
    done = set()
    while todo:
        part = next(iter(todo))
        yield f"## {todo.pop(part)} {{ #{part.__name__} }}\n\n{_table(part)}\n"
        done.add(part)
        for name, field in part.model_fields.items():
            for inner in _parts_in(field.annotation):
                if inner not in done:
                    todo.setdefault(inner, f"`{name}`: {inner.__name__}")


def _methods() -> Iterator[str]:
    """What each merge method searches and in which range unless given, and its options."""
    yield from _table_of(METHODS.values())
    yield "\nIn the space of [adapters](adapters.md):\n"
    yield from _table_of(ADAPTER_METHODS.values())


def _table_of(methods: Iterable[Method]) -> Iterator[str]:
    yield "| method | searched | options |\n| --- | --- | --- |"
    for method in methods:
        searched = [f"{_code(p.name)} [{p.low:g}, {p.high:g}]" for p in method.parameters]
        options = [f"{_code(o.name)} {str(o.default).lower()}" for o in method.options]
        yield f"| {_code(method.name)} | {', '.join(searched)} | {', '.join(options)} |"


def _code(text: str) -> str:
    return f"`{text}`"


def _table(part: type[BaseModel]) -> str:
    """A class's docstring and its keys, but for those that every study has."""
    rows = [
        f"| {_code(field.alias or name)} | {_type(field.annotation, field.metadata)} "
        f"| {_default(field)} | {' '.join((field.description or '').split())} |"
        for name, field in part.model_fields.items()
        if part is StudySpec or name not in StudySpec.model_fields or name == "stage"
    ]
    head = ["| key | value | unless given | |", "| --- | --- | --- | --- |"]
    return "\n".join([inspect.getdoc(part) or "", "", *head, *rows])


def _parts_in(kind: Any) -> Iterator[type[Strict]]:
    if isinstance(kind, type) and issubclass(kind, Strict):
        yield kind
    for inner in get_args(kind):
        yield from _parts_in(inner)


def _type(kind: Any, metadata: Sequence[Any] = ()) -> str:
    """A type in words, with its bounds; a part of the spec as a link to its section."""
    parts = get_args(kind)
    if kind in _WORDS:
        return " ".join([_WORDS[kind], *_bounds(metadata)])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__})" if issubclass(kind, Strict) else "recipe"
    if get_origin(kind) is Annotated:
        return _type(parts[0], parts[1:])
    if get_origin(kind) is Literal:
        return ", ".join(_code(part) for part in parts)
    if get_origin(kind) is tuple:
        return f"list of {_type(parts[0])}"
    if get_origin(kind) is dict:
        return f"name: {_type(parts[1])}"
    words = list(dict.fromkeys(_type(part) for part in parts if part is not NoneType))
    if len(words) == 2 and words[1] == f"list of {words[0]}":
        return f"{words[0]}, or a list of these"
    return " or ".join(words)


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for given in (part for item in metadata for part in (getattr(item, "metadata", ()) or [item])):
        for name, sign in _BOUNDS.items():
            bound = getattr(given, name, None)
            if isinstance(bound, int | float) and bound < _LARGEST:
                yield f"{sign} {bound:,}"


def _default(field: Any) -> str:
    if field.is_required():
        return "needed"
    if field.default in (None, (), PydanticUndefined) or isinstance(field.default, BaseModel):
        return ""
    text = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return f"`{text!r}`".replace("'", "") if text.strip() else "a blank"


def _commands(command: click.Command, name: str) -> Iterator[str]:
    """Every command's own help, under its name."""
    yield f"## {name}\n\n```text\n{command.get_help(click.Context(command, info_name=name))}\n```\n"
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from _commands(inner, f"{name} {word}")


def _functions() -> Iterator[str]:
    """Signatures and docstrings as they are in the source."""
    for function in (api.create_study, api.run_study, api.export):
        signature, docstring, _ = inspect.getsource(function).split('"""', 2)
        yield f'## {function.__name__}\n\n```py\n{signature}"""{docstring}"""\n```\n'
