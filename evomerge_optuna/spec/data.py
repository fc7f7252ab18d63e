"""Where the problems of a task come from, and the templates that turn them into text."""

import re
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag, model_serializer, model_validator

from evomerge_optuna.spec.part import Integer, Strict

SPLITS = ("search", "dev", "test")
_NO_COLUMN = re.compile(r"""[]["'`{}<>=:;!,*\\\n]""")


def _check_encoding(name: str) -> str:
    try:
        "a".encode(name)
    except (LookupError, ValueError) as error:
        raise ValueError("is no encoding of texts that Python knows; write one as cp932") from error
    return name


def _check_delimiter(character: str) -> str:
    if character in '"\r\n\0':
        raise ValueError('parts no cells; write the character between them, as ";"')
    return character


class DataSource(Strict):
    """One split of a data set, as `datasets.load_dataset` names it."""

    path: str
    """A CSV, TSV, JSON, JSONL, NDJSON or Parquet file, also as `.gz`, `.bz2`, `.xz` or `.zst`; a
    folder; the hub id of a data set; or `zoo:problems`."""
    name: str | None = None
    """The configuration of a data set on the hub."""
    split: str = "train"
    """A split or a part of it, for example `train[:150]`. A file has only the split `train`."""
    columns: tuple[str, ...] | None = None
    """The names of the columns, for a CSV or TSV file without a header."""
    encoding: Annotated[str, AfterValidator(_check_encoding)] | None = None
    """The encoding of a text file, for example `cp932`. The default is UTF-8."""
    delimiter: (
        Annotated[str, Field(min_length=1, max_length=1), AfterValidator(_check_delimiter)] | None
    ) = None
    """The character between the cells of a CSV or TSV file, for example `;`. The default is a
    comma, or a tab for TSV."""
    answer: str | None = None
    """The column of the answer, where it differs from the task's."""


class TaskData(Strict):
    """Where the problems of each split come from."""

    search: DataSource
    """The problems that candidates are scored on during the search."""
    dev: DataSource | None = None
    """The problems that choose among the best candidates. Without them the search split does."""
    test: DataSource | None = None
    """The problems that the search does not use. `study test` scores them."""

    @model_validator(mode="before")
    @classmethod
    def _one_data_set(cls, value: object) -> object:
        if isinstance(value, str):
            return {split: {"path": value, "split": split} for split in SPLITS}
        return value

    def sources(self) -> dict[str, DataSource]:
        """The splits that the spec gives, in the order search, dev, test."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: source for split, source in found.items() if source is not None}


class DocumentData(Strict):
    """Which documents of an lm-evaluation-harness task belong to each split.

    `[:200]` is a part of the split that the task itself is scored on. `train[:200]` and `test` name
    a split of its data set.
    """

    search: "Documents"
    """The problems that candidates are scored on during the search."""
    dev: "Documents | None" = None
    """The documents that choose among the best candidates."""
    test: "Documents | None" = None
    """The documents that the search does not use."""

    def sources(self) -> dict[str, "Documents"]:
        """The splits that the spec gives, in the order search, dev, test."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: source for split, source in found.items() if source is not None}


class Documents(Strict):
    """A slice of a split."""

    split: str
    """The name of the split in the data set. Empty stands for the split that the task is scored
    on."""
    start: int | None
    """The first document, from 0."""
    stop: int | None
    """The document after the last one."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = re.fullmatch(r"([A-Za-z_][\w.-]*)?(?:\[(-?\d{0,9}):(-?\d{0,9})\])?", value)
        if parts is None or not value or "-" in parts.groups():
            raise ValueError('write documents as "[:200]", "validation[200:]" or "test"')
        split, start, stop = parts.groups()
        return {
            "split": split or "",
            "start": int(start) if start else None,
            "stop": int(stop) if stop else None,
        }

    @model_serializer
    def __str__(self) -> str:
        if self.split and self.start is None and self.stop is None:
            return self.split
        start, stop = ("" if end is None else end for end in (self.start, self.stop))
        return f"{self.split}[{start}:{stop}]"

    def of(self, count: int) -> range:
        """The places of its documents among `count`."""
        return range(count)[self.start : self.stop]


class ShotSource(DataSource):
    """The first `n` rows of a data set, shown with their answers before every problem."""

    n: Annotated[Integer, Field(ge=1)] = 4
    """The number of rows."""


Row = dict[str, Annotated[str, Field(coerce_numbers_to_str=True)]]


def _kind(value: object) -> str:
    return "(list)" if isinstance(value, list | tuple) else "(one)"


# Discriminated, so that an error is about what was written, not about both.
Shots = Annotated[
    Annotated[ShotSource, Tag("(one)")] | Annotated[tuple[Row, ...], Tag("(list)")],
    Discriminator(_kind),
]


def columns(template: str) -> list[str]:
    """The columns that a template names, or paths into them, as `choices.text.0`."""
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def can_name(path: str) -> bool:
    """Can a template name this column, or path into one? Blanks and most signs may be in it.

    What is refused is what stands between the braces of JSON and of code.
    """
    parts = path.split(".")
    return all(part and part == part.strip() and not _NO_COLUMN.search(part) for part in parts)


def _check_template(text: str) -> str:
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"is no template ({error}); write {{{{ and }}}} for braces") from error
    fields = [(name, how, to) for _, name, how, to in parts if name is not None]
    for name, format_spec, conversion in fields:
        if not can_name(name):
            raise ValueError(f"'{{{name}}}' names no column; write {{column}}, {{{{ for a brace")
        if format_spec or conversion:
            raise ValueError(f"column '{name}' has a format or conversion; write plain {{{name}}}")
    return text


def _check_columns(text: str) -> str:
    if not columns(text):
        raise ValueError("names no column, so all problems are alike; write {column}")
    return text


Text = Annotated[str, AfterValidator(_check_template)]
Template = Annotated[Text, AfterValidator(_check_columns)]

# A column that holds a list, or a list of templates, each of which may be a fixed text.
Options = Annotated[
    Annotated[str, Tag("(one)")] | Annotated[tuple[Text, ...], Field(min_length=2), Tag("(list)")],
    Discriminator(_kind),
]
