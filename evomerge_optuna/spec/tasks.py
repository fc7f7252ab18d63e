"""Tasks: data, prompts, and which metrics they have."""

from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from evomerge_optuna.spec.part import Integer, Strict

TASK_METRICS = {
    "generate": ("accuracy", "number_accuracy", "language_share"),
    "perplexity": ("perplexity",),
}
SPLITS = ("search", "dev", "test")


class DataSource(Strict):
    """One split of a data set, in the terms of `datasets.load_dataset`."""

    path: str
    name: str | None = None
    split: str = "train"
    columns: tuple[str, ...] | None = None  # names for a CSV or TSV file without a header
    answer: str | None = None  # the answer's column, where it is not the task's


class TaskData(Strict):
    """Where the problems of each split come from."""

    search: DataSource
    dev: DataSource | None = None
    test: DataSource | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_data_set(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {split: {"path": value, "split": split} for split in SPLITS}
        return value

    def sources(self) -> dict[str, DataSource]:
        """The splits that the spec gives, in the order search, dev, test."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: source for split, source in found.items() if source is not None}


def _check_template(text: str) -> str:
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"is no template ({error}); write {{{{ and }}}} for braces") from error
    fields = [(name, how, to) for _, name, how, to in parts if name is not None]
    for name, format_spec, conversion in fields:
        if not name.isidentifier():
            raise ValueError(f"'{{{name}}}' names no column; write {{column}}, {{{{ for a brace")
        if format_spec or conversion:
            raise ValueError(f"column '{name}' has a format or conversion; write plain {{{name}}}")
    if not fields:
        raise ValueError("names no column, so all problems are alike; write {column}")
    return text


Template = Annotated[str, AfterValidator(_check_template)]


class GenerateTask(Strict):
    """Generate an answer greedily; the last number in it is compared with the data's."""

    type: Literal["generate"]
    data: TaskData
    prompt: Template = "{question}"
    answer: str = "answer"
    language: str | None = None
    max_new_tokens: Annotated[Integer, Field(ge=1)] = 256

    @property
    def metrics(self) -> tuple[str, ...]:
        names = TASK_METRICS["generate"]
        return names if self.language else names[:2]


class PerplexityTask(Strict):
    """Perplexity: exp of the mean, over texts, of a text's negative log-likelihood per token.

    A text's first token is given, not predicted; a text of one token is left out.
    """

    type: Literal["perplexity"]
    data: TaskData
    text: Template = "{text}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return TASK_METRICS["perplexity"]


Task = Annotated[GenerateTask | PerplexityTask, Field(discriminator="type")]
