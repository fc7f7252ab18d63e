"""Tasks: data, prompts, how answers are scored, and which metrics they have."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

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


# How a generated text is compared with the answer; see `evaluation.scorers`.
Scorer = Annotated[
    Annotated[
        Literal["last_number", "released_number", "exact", "contains", "rouge_l"], Tag("(one)")
    ]
    | Annotated[Regex, Tag("(regex)")],
    Discriminator(lambda value: "(regex)" if isinstance(value, dict | Regex) else "(one)"),
]


class Asked(Strict):
    """What is common to tasks with a question and an answer.

    As a `chat` the model's own chat template is used, the prompt as the user's message.
    """

    data: TaskData
    prompt: Template = "{question}"
    answer: str = "answer"
    chat: bool = False
    system: str | None = None

    @model_validator(mode="after")
    def _system_of_a_chat(self) -> "Asked":
        if self.system is not None and not self.chat:
            raise ValueError("system: only a chat has a system message; write chat: true")
        return self


class Prompted(Asked):
    """What is common to tasks with solved problems before the one that is asked.

    Before the problem come the shots, each with its answer after `target_delimiter` and an empty
    line; in a chat they are turns of the conversation.
    """

    shots: Shots = ()
    target_delimiter: str = " "  # between prompt and answer


class Generated(Strict):
    """What is common to tasks whose answer is generated greedily and compared with the data's."""

    scorer: Scorer = "last_number"
    language: str | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    max_new_tokens: Annotated[Integer, Field(ge=1)] = 256

    @property
    def metrics(self) -> tuple[str, ...]:
        found: tuple[str, ...] = ("accuracy", "match_accuracy")
        if self.scorer in ("last_number", "released_number"):
            found = ("accuracy", "number_accuracy")
        elif self.scorer == "rouge_l":
            found = ("rouge_l",)
        return (*found, "language_share") if self.language else found


class GenerateTask(Prompted, Generated):
    """Generate an answer to a text."""

    type: Literal["generate"]


class VqaTask(Asked, Generated):
    """Visual question answering: generate an answer to a text about an image.

    `image` is the column of the images: of the `datasets` Image feature, or of the paths of files,
    relative to the data's own file. In the prompt IMAGE stands for it, whatever the model's own
    placeholder is.
    """

    type: Literal["vqa"]
    prompt: Template = IMAGE + "\n{question}"
    image: str = "image"

    @model_validator(mode="after")
    def _one_image(self) -> "VqaTask":
        if self.prompt.count(IMAGE) != 1:
            raise ValueError(f"prompt: write {IMAGE} once, where the image belongs")
        return self


class ChoiceTask(Prompted):
    """Which of the options does the model find likeliest after the prompt?

    `options` is a column that holds a list, or a list of templates. The answer is the text of an
    option or its index, from 0; `answer_as` says which, where options are numbers.
    """

    type: Literal["choice"]
    options: Options = "choices"
    answer_as: Literal["text", "index"] | None = None

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("accuracy", "normalized_accuracy")


class PerplexityTask(Strict):
    """Perplexity: exp of the mean, over texts, of a text's negative log-likelihood per token.

    A text's first token is given, not predicted; a text of one token is left out.
    """

    type: Literal["perplexity"]
    data: TaskData
    text: Template = "{text}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("perplexity",)


class PythonTask(Strict):
    """The user's own scoring: `function` is `module:function`; see `evaluation.user_code`."""

    type: Literal["python"]
    data: TaskData
    function: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("score",)


class LMEvalTask(Strict):
    """A task of EleutherAI's lm-evaluation-harness: a built-in one, or one of the user's folder.

    `metric` and `filter` are those of the task's configuration. The model is handed over in
    memory, unless a `backend` (a model of the harness by its name, as vllm) is to load the
    candidate's checkpoint with `backend_args`.
    """

    type: Literal["lm_eval"]
    task: Annotated[str, Field(min_length=1)]
    include_path: str | None = None
    data: DocumentData
    metric: Annotated[str, Field(min_length=1)] = "acc"
    filter: str = "none"
    num_fewshot: Annotated[Integer, Field(ge=0)] | None = None  # the task's own unless given
    chat: bool = False
    system: str | None = None
    backend: str | None = None
    backend_args: dict[str, bool | Integer | float | str] = Field(default_factory=dict)

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
        return (self.metric,)


Task = Annotated[
    GenerateTask | ChoiceTask | PerplexityTask | PythonTask | LMEvalTask | VqaTask,
    Field(discriminator="type"),
]
