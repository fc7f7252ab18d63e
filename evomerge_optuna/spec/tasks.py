"""Tasks: their data, their prompts, how answers are scored, and their metrics."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from evomerge_optuna.spec.data import DocumentData, Options, Shots, TaskData, Template
from evomerge_optuna.spec.images import ImageTask
from evomerge_optuna.spec.metrics import Metric, harness_metric
from evomerge_optuna.spec.part import FunctionName, Integer, Strict

IMAGE = "<image>"  # in the prompt of a vqa task


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


class Regex(Strict):
    """Compares the first match of a regular expression: its first group, or the whole match."""

    regex: Annotated[str, AfterValidator(_check_pattern)]
    """A Python regular expression, for example `"Answer: (.+)"`."""


# How a generated text is compared with the answer; see `evaluation.scorers`.
Scorer = Annotated[
    Annotated[
        Literal["last_number", "released_number", "math", "exact", "contains", "rouge_l"],
        Tag("(one)"),
    ]
    | Annotated[Regex, Tag("(regex)")],
    Discriminator(lambda value: "(regex)" if isinstance(value, dict | Regex) else "(one)"),
]


# How a prompt or text that is longer than a model's positions is shortened: its beginning is left
# out, or its middle.
Cut = Literal["cut", "cut_middle"]

CUT_OFF = "cut_off_share"  # the metric: the share of answers whose thinking has no end
_CUT_OFF = Metric(CUT_OFF, "share", "low")

# The program itself gives these arguments to `apply_chat_template`.
_NOT_OF_THE_TEMPLATE = (
    *("conversation", "messages", "add_generation_prompt", "continue_final_message", "tokenize"),
    *("return_dict", "return_tensors", "return_assistant_tokens_mask", "tokenizer_kwargs"),
    *("padding", "truncation", "max_length"),
)


def _check_chat_args(given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    for name in given:
        if name in _NOT_OF_THE_TEMPLATE:
            raise ValueError(f"'{name}' is none of the template's own variables; remove it")
    return given


_NO_CHAT = "chat_args: only a chat has a template that reads them; write chat: true"

ChatArgs = Annotated[dict[str, JsonValue], AfterValidator(_check_chat_args)]


class Asked(Strict):
    """What tasks with a question and an answer have in common.

    A `chat` uses the model's own chat template, with the prompt as the user's message.
    """

    data: TaskData
    """The problems of each split. A text names a data set whose splits are search, dev and test."""
    prompt: Template = "{question}"
    """A template. `{column}` stands for the problem's value in that column."""
    answer: str = "answer"
    """The column of the right answer, or a path into a column, for example `answers.text`. In a
    list, any item is right."""
    chat: bool = False
    """Use the tokenizer's chat template, with the prompt as the user's message."""
    system: str | None = None
    """The system message of a chat."""
    chat_args: ChatArgs = Field(default_factory=dict)
    """More variables of the chat template, for example `{enable_thinking: false}`."""

    @model_validator(mode="after")
    def _of_a_chat(self) -> "Asked":
        if self.system is not None and not self.chat:
            raise ValueError("system: only a chat has a system message; write chat: true")
        if self.chat_args and not self.chat:
            raise ValueError(_NO_CHAT)
        return self


class Prompted(Asked):
    """What tasks that show solved problems before the question have in common.

    The shots come before the problem. After each shot come `target_delimiter`, its answer and an
    empty line. In a chat the shots are turns of the conversation.
    """

    shots: Shots = ()
    """Solved problems before each prompt: a list of rows, or a data set and a number of rows."""
    target_delimiter: str = " "
    """The text between prompt and answer."""
    too_long: Cut | None = None
    """How to shorten a prompt that, with its answer, is longer than a model's positions: `cut`
    leaves out its beginning, `cut_middle` its middle. By default such a prompt is refused."""


class Generated(Asked):
    """What tasks that generate an answer and compare it with the data's answer have in common."""

    scorer: Scorer = "last_number"
    """How the generated text is compared with the answer."""
    language: str | None = None
    """An ISO 639 code, for example `ja`. An answer is right only if it is in this language."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """An answer ends before the first of these texts."""
    max_new_tokens: Annotated[Integer, Field(ge=1)] = 256
    """The most tokens that an answer may have, including its thinking."""
    thinking: Annotated[str, Field(min_length=1)] | None = None
    """The text that ends a model's thinking, for example `</think>`. Everything before it is
    ignored. By default it is found in the tokenizer."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        if self.scorer == "rouge_l":
            found = [Metric("rouge_l", "grade", "high")]
        else:
            numbers = self.scorer in ("last_number", "released_number")
            match = "number_accuracy" if numbers else "match_accuracy"
            found = [Metric("accuracy", "share", "high"), Metric(match, "share", "high")]
        if self.language:
            found.append(Metric("language_share", "share", "high"))
        return (*found, *([_CUT_OFF] if self.chat or self.thinking else []))


class GenerateTask(Prompted, Generated):
    """Generate an answer to a text."""

    type: Literal["generate"]
    """The type of the task."""


class VqaTask(Generated):
    """Visual question answering: generate an answer to a text about an image."""

    type: Literal["vqa"]
    """The type of the task."""
    prompt: Template = IMAGE + "\n{question}"
    """A template. `{column}` stands for the problem's value in that column. `<image>` stands where
    the image belongs; it becomes the model's own placeholder."""
    image: str = "image"
    """The column with the images: the `datasets` Image feature, or paths of files, relative to the
    data's own file."""

    @model_validator(mode="after")
    def _one_image(self) -> "VqaTask":
        if self.prompt.count(IMAGE) != 1:
            raise ValueError(f"prompt: write {IMAGE} once, where the image belongs")
        return self


class ChoiceTask(Prompted):
    """Ask which of the options the model finds most likely after the prompt.

    `options` is a column that holds a list, or a list of templates. The answer is the text of an
    option. Otherwise it is the option's label, if there are `labels`, or its index, from 0. Where
    options are numbers or labels, `answer_as` says which of these it is. In a list of answers, all
    are right.
    """

    type: Literal["choice"]
    """The type of the task."""
    options: Options = "choices"
    """The column with the list of options, or a list of templates."""
    labels: Options | None = None
    """The names that the answer's column has for the options: a column with a list of labels, for
    example `choices.label`, or a list, for example `[A, B, C, D]`."""
    answer_as: Literal["text", "label", "index"] | None = None
    """What the answer's column holds. It is only needed where options are numbers or labels."""

    @model_validator(mode="after")
    def _labels_that_answers_are(self) -> "ChoiceTask":
        if self.answer_as == "label" and self.labels is None:
            raise ValueError("answer_as: there are no labels; write labels: [A, B, C, D]")
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("accuracy", "share", "high"),
            Metric("normalized_accuracy", "share", "high"),
        )


class PerplexityTask(Strict):
    """Perplexity: exp of the mean, over all texts, of a text's negative log-likelihood per token.

    The first token of a text is given, not predicted. A text of one token is left out.
    """

    type: Literal["perplexity"]
    """The type of the task."""
    data: TaskData
    """The texts of each split."""
    text: Template = "{text}"
    """A template. `{column}` stands for the row's value in that column."""
    too_long: Cut | None = None
    """How to shorten a text that is longer than a model's positions: `cut` leaves out its
    beginning, `cut_middle` its middle. By default such a text is refused."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("perplexity", "perplexity", "low"),)


class PythonTask(Strict):
    """Score with a Python function of your own; `docs/extending.md` shows one."""

    type: Literal["python"]
    """The type of the task."""
    data: TaskData
    """The rows of each split. The function gets them."""
    function: FunctionName
    """`module:function`, imported from the current folder. It returns a number for each row."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("score", "number"),)


class LMEvalTask(Strict):
    """A task of EleutherAI's lm-evaluation-harness: a built-in task, or one of your own folder."""

    type: Literal["lm_eval"]
    """The type of the task."""
    task: Annotated[str, Field(min_length=1)]
    """The task's name in the harness."""
    include_path: str | None = None
    """A folder with your own tasks."""
    data: DocumentData
    """Which documents of the task belong to each split."""
    metric: Annotated[str, Field(min_length=1)] = "acc"
    """One of the metrics in the task's configuration."""
    filter: str = "none"
    """One of the filters in the task's configuration."""
    num_fewshot: Annotated[Integer, Field(ge=0)] | None = None
    """The number of solved documents before each document. The default is the task's own number."""
    chat: bool = False
    """Use the tokenizer's chat template."""
    system: str | None = None
    """The system message of a chat."""
    chat_args: ChatArgs = Field(default_factory=dict)
    """More variables of the chat template, for example `{enable_thinking: false}`."""
    thinking: Annotated[str, Field(min_length=1)] | None = None
    """The text that ends a model's thinking. Everything before it is ignored. By default it is
    found in the tokenizer."""
    too_long: Literal["cut"] | None = None
    """With `cut`, the harness leaves out the beginning of a prompt that, with its answer, is longer
    than a model's positions. By default such a prompt is refused."""
    backend: str | None = None
    """The name of one of the harness's models, for example `vllm`. It loads the candidate's
    checkpoint from disk. By default the harness gets the model in memory."""
    backend_args: dict[str, bool | Integer | float | str] = Field(default_factory=dict)
    """The arguments of the backend's model."""

    @model_validator(mode="after")
    def _of_a_chat(self) -> "LMEvalTask":
        if self.chat_args and not self.chat:
            raise ValueError(_NO_CHAT)
        return self

    @model_validator(mode="after")
    def _arguments_of_a_backend(self) -> "LMEvalTask":
        if self.backend_args and self.backend is None:
            raise ValueError("backend_args: there is no backend that takes them; name one")
        given = {"pretrained", "trust_remote_code"} & self.backend_args.keys()
        if given:
            raise ValueError(
                f"backend_args: {given.pop()} is not for a spec to give: the candidate's "
                "checkpoint is loaded, and no code of it is run"
            )
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        own = harness_metric(self.metric)
        return (own, _CUT_OFF) if self.chat or self.thinking else (own,)


Task = Annotated[
    GenerateTask | ChoiceTask | PerplexityTask | PythonTask | LMEvalTask | VqaTask | ImageTask,
    Field(discriminator="type"),
]
