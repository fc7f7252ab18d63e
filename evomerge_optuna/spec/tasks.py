"""Tasks: data, prompts, how answers are scored, and which metrics they have."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from evomerge_optuna.spec.data import DocumentData, Options, Shots, TaskData, Template
from evomerge_optuna.spec.part import Integer, Strict

IMAGE = "<image>"  # in the prompt of a vqa task


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


class Regex(Strict):
    """Compares what a regular expression finds first: its first group, or all of it."""

    regex: Annotated[str, AfterValidator(_check_pattern)]
    """A Python regular expression, as `"Answer: (.+)"`."""


# How a generated text is compared with the answer; see `evaluation.scorers`.
Scorer = Annotated[
    Annotated[
        Literal["last_number", "released_number", "math", "exact", "contains", "rouge_l"],
        Tag("(one)"),
    ]
    | Annotated[Regex, Tag("(regex)")],
    Discriminator(lambda value: "(regex)" if isinstance(value, dict | Regex) else "(one)"),
]


# What becomes of a prompt or text for which a model has no positions, where it is not refused:
# what comes first is left out, or what is in the middle.
Cut = Literal["cut", "cut_middle"]

CUT_OFF = "cut_off_share"  # the metric: answers that are none, since thinking had no end

# What `apply_chat_template` is given by the program itself.
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
    """What is common to tasks with a question and an answer.

    As a `chat` the model's own chat template is used, the prompt as the user's message.
    """

    data: TaskData
    """The problems of each split; a text alone is a data set with the splits of these names."""
    prompt: Template = "{question}"
    """A template with `{column}` for what a problem has there."""
    answer: str = "answer"
    """The column of the right answer, or a path into one, as `answers.text`; of a list any is
    right."""
    chat: bool = False
    """By the tokenizer's chat template, the prompt as the user's message."""
    system: str | None = None
    """The system message of a chat."""
    chat_args: ChatArgs = Field(default_factory=dict)
    """What else the chat template reads, as `{enable_thinking: false}`."""

    @model_validator(mode="after")
    def _of_a_chat(self) -> "Asked":
        if self.system is not None and not self.chat:
            raise ValueError("system: only a chat has a system message; write chat: true")
        if self.chat_args and not self.chat:
            raise ValueError(_NO_CHAT)
        return self


class Prompted(Asked):
    """What is common to tasks with solved problems before the one that is asked.

    Before the problem come the shots, each with its answer after `target_delimiter` and an empty
    line; in a chat they are turns of the conversation.
    """

    shots: Shots = ()
    """Solved problems before each prompt: rows, or a data set and how many of it."""
    target_delimiter: str = " "
    """Between prompt and answer."""
    too_long: Cut | None = None
    """What becomes of a prompt that is longer than a model has positions for, its answer included:
    `cut` leaves out its beginning, `cut_middle` its middle. Refused unless given."""


class Generated(Asked):
    """What is common to tasks whose answer is generated greedily and compared with the data's."""

    scorer: Scorer = "last_number"
    """How the text is compared with the answer."""
    language: str | None = None
    """An ISO 639 code as `ja`: right only if the answer is in this language."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """An answer ends before the first of these."""
    max_new_tokens: Annotated[Integer, Field(ge=1)] = 256
    """An answer ends after so many tokens at the latest, thinking included."""
    thinking: Annotated[str, Field(min_length=1)] | None = None
    """What ends the thinking of a model that thinks before it answers, as `</think>`; found from
    the tokenizer unless given. What stands before it counts for nothing."""

    @property
    def metrics(self) -> tuple[str, ...]:
        found: tuple[str, ...] = ("accuracy", "match_accuracy")
        if self.scorer in ("last_number", "released_number"):
            found = ("accuracy", "number_accuracy")
        elif self.scorer == "rouge_l":
            found = ("rouge_l",)
        thinks = (CUT_OFF,) if self.chat or self.thinking else ()
        return (*found, *(("language_share",) if self.language else ()), *thinks)


class GenerateTask(Prompted, Generated):
    """Generate an answer to a text."""

    type: Literal["generate"]
    """What kind of task it is."""


class VqaTask(Generated):
    """Visual question answering: generate an answer to a text about an image."""

    type: Literal["vqa"]
    """What kind of task it is."""
    prompt: Template = IMAGE + "\n{question}"
    """A template with `{column}` for what a problem has there, and with `<image>` where the image
    belongs, whatever the model's own placeholder is."""
    image: str = "image"
    """The column of the images: of the `datasets` Image feature, or of the paths of files, relative
    to the data's own file."""

    @model_validator(mode="after")
    def _one_image(self) -> "VqaTask":
        if self.prompt.count(IMAGE) != 1:
            raise ValueError(f"prompt: write {IMAGE} once, where the image belongs")
        return self


class ChoiceTask(Prompted):
    """Which of the options does the model find likeliest after the prompt?

    `options` is a column that holds a list, or a list of templates. The answer is the text of an
    option, or its label where there are `labels`, else its index, from 0; `answer_as` says which,
    where options are numbers or labels. A list of answers is of options that are all right.
    """

    type: Literal["choice"]
    """What kind of task it is."""
    options: Options = "choices"
    """The column with a list of them, or a list of templates."""
    labels: Options | None = None
    """What the answer's column calls the options: a column with a list of labels, as
    `choices.label`, or a list of them, as `[A, B, C, D]`."""
    answer_as: Literal["text", "label", "index"] | None = None
    """What the answer's column holds; only needed where options are numbers or labels."""

    @model_validator(mode="after")
    def _labels_that_answers_are(self) -> "ChoiceTask":
        if self.answer_as == "label" and self.labels is None:
            raise ValueError("answer_as: there are no labels; write labels: [A, B, C, D]")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "normalized_accuracy")


class PerplexityTask(Strict):
    """Perplexity: exp of the mean, over texts, of a text's negative log-likelihood per token.

    A text's first token is given, not predicted; a text of one token is left out.
    """

    type: Literal["perplexity"]
    """What kind of task it is."""
    data: TaskData
    """The texts of each split."""
    text: Template = "{text}"
    """A template with `{column}` for what a row has there."""
    too_long: Cut | None = None
    """What becomes of a text that is longer than a model has positions for: `cut` leaves out its
    beginning, `cut_middle` its middle. Refused unless given."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("perplexity",)


class PythonTask(Strict):
    """The user's own scoring: `function` is `module:function`; see `evaluation.user_code`."""

    type: Literal["python"]
    """What kind of task it is."""
    data: TaskData
    """The rows of each split, which the function gets."""
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`module:function`, found from the current folder: a number for each row."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("score",)


class LMEvalTask(Strict):
    """A task of EleutherAI's lm-evaluation-harness: a built-in one, or one of the user's folder."""

    type: Literal["lm_eval"]
    """What kind of task it is."""
    task: Annotated[str, Field(min_length=1)]
    """The harness's name of it."""
    include_path: str | None = None
    """A folder with tasks of yours."""
    data: DocumentData
    """Which of the task's documents belong to each split."""
    metric: Annotated[str, Field(min_length=1)] = "acc"
    """One of the metrics of the task's configuration."""
    filter: str = "none"
    """One of the filters of the task's configuration."""
    num_fewshot: Annotated[Integer, Field(ge=0)] | None = None
    """Solved documents before each; the task's own number unless given."""
    chat: bool = False
    """By the tokenizer's chat template."""
    system: str | None = None
    """The system message of a chat."""
    chat_args: ChatArgs = Field(default_factory=dict)
    """What else the chat template reads, as `{enable_thinking: false}`."""
    thinking: Annotated[str, Field(min_length=1)] | None = None
    """What ends the thinking of a model that thinks before it answers; found from the tokenizer
    unless given. What stands before it counts for nothing."""
    too_long: Literal["cut"] | None = None
    """`cut`: the harness leaves out the beginning of a prompt that is longer than a model has
    positions for, its answer included. Refused unless given."""
    backend: str | None = None
    """A model of the harness by its name, as `vllm`, which loads the candidate's checkpoint; the
    model is handed over in memory unless given."""
    backend_args: dict[str, bool | Integer | float | str] = Field(default_factory=dict)
    """What that model is made with."""

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
    def metrics(self) -> tuple[str, ...]:
        return (self.metric, CUT_OFF) if self.chat or self.thinking else (self.metric,)


Task = Annotated[
    GenerateTask | ChoiceTask | PerplexityTask | PythonTask | LMEvalTask | VqaTask,
    Field(discriminator="type"),
]
