"""A problem of a task, and how its parts come out of a row of data."""

from dataclasses import dataclass, field
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec.data import columns


@dataclass(frozen=True)
class Problem:
    """What the model is given (a prompt, or a text to judge), and the answer if there is one.

    Where it is a choice, the options, of which the answer is one. Of python and lm_eval tasks the
    text is the row as JSON, of a vqa task the image is that file's content. `content` is what the
    data has put into the prompt: two tasks may ask the same in other words.
    """

    text: str
    reference: str | None = None
    options: tuple[str, ...] = ()
    content: str = field(default="", compare=False)
    image: bytes | None = field(default=None, repr=False)


def filled(template: str, row: dict[str, Any], where: str) -> str:
    """The template with the row's columns in it.

    Raises:
        SpecError: there is no such column.
    """
    return template.format_map({name: column(name, row, where) for name in columns(template)})


def content(template: str, row: dict[str, Any]) -> str:
    """The columns that a template names, whatever it says around them."""
    return "\n".join(str(row[name]) for name in sorted({*columns(template)}))


def column(name: str | None, row: dict[str, Any], where: str) -> Any:
    """The row's value in a column.

    Raises:
        SpecError: there is no such column.
    """
    if name not in row:
        raise SpecError(f"{where} has no column '{name}'; it has {', '.join(map(str, row))}")
    return row[name]
