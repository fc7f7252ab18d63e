"""The task of a study: what kind it is, and how answers are scored, by the rows of the data."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.answers import one_number
from evomerge_optuna.evaluation.language import language_of
from evomerge_optuna.evaluation.problem import Row, column, content
from evomerge_optuna.proposal.columns import Columns
from evomerge_optuna.proposal.facts import ModelFacts
from evomerge_optuna.proposal.goals import HUMAN
from evomerge_optuna.spec import IMAGE

_SAMPLE = 2000  # rows that are looked at
_SHORT = 40  # characters of an answer that is a name or a word
_TOKENS = (32, 512)  # of an answer, the fewest and the most that are proposed
_ROOM_TO_THINK = 256  # tokens, where the answer is a number that a model comes to in some steps


@dataclass
class TaskDraft:
    """A task as a spec has it.

    Attributes:
        target: the objective, as `{"maximize": "math.accuracy"}`.
        notes: comments at the end of lines, by the key in the task.
        offers: lines of comment after a key, by the key in the task.
    """

    content: dict[str, Any]
    target: dict[str, str]
    notes: dict[str, str] = field(default_factory=dict)
    offers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def goal_of(columns: Columns, models: ModelFacts) -> str | None:
    """What the data can be used for with such models; None: for nothing."""
    if models.kind == "pipeline":
        return "image" if columns.text or columns.prompt else None
    if columns.prompt and columns.answer:
        if columns.options is not None:
            return "choice"
        is_seen = models.kind == "vision" and columns.picture is not None
        return "vqa" if is_seen else "generate"
    return "perplexity" if columns.text else None


def language_in(rows: Sequence[Row], columns: Columns) -> str | None:
    """The language that an answer is to be in, if it is not English; None where that says little.

    English is what most models answer in, and a merge need not be told.
    """
    if columns.prompt is None:
        return None
    found = language_of([content(columns.prompt, row) for row in rows[:50]])
    return None if found == "en" else found


def task_of(
    goal: str,
    name: str,
    rows: Sequence[Row],
    columns: Columns,
    models: ModelFacts,
    language: str | None,
    judge: str,
) -> TaskDraft:
    """The task without its data.

    Args:
        goal: one of `GOALS`.
        name: of the task.
        rows: of all splits.
        language: an ISO 639 code; None: an answer may be in any.
        judge: of pictures: a CLIP model, a function as `module:function`, or `HUMAN`.

    Raises:
        UsageError: the data has no columns for it.
    """
    if goal == "image":
        return _image(name, rows, columns, judge)
    if goal == "perplexity":
        return _perplexity(name, columns)
    if columns.prompt is None or columns.answer is None:
        what = "question" if columns.prompt is None else "answer"
        raise UsageError(
            f"--goal: {goal} needs columns with a question and an answer, and no column looks like "
            f"the {what}; it has {', '.join(rows[0]) if rows else 'none'}: give --{what} COLUMN"
        )
    if goal == "choice":
        return _choice(name, columns, models)
    return _generated(goal, name, rows, columns, models, language)


def _image(name: str, rows: Sequence[Row], columns: Columns, judge: str) -> TaskDraft:
    prompt = columns.text or columns.prompt
    if prompt is None:
        raise UsageError("--goal: image needs a column with prompts, and there is none; add prompt")
    content: dict[str, Any] = {"type": "image"}
    if prompt != "{prompt}":
        content["prompt"] = prompt
    content |= {"steps": 20, "guidance": 5}
    if judge == HUMAN:
        scorers = {"taste": {"type": "human"}}
    elif ":" in judge and not judge.startswith("zoo:"):
        scorers = {"own": {"type": "python", "function": judge}}
    else:
        scorers = {"clip": {"type": "clip", "model": judge}}
    content["scorers"] = scorers
    notes = {
        "steps": "fewer are faster; as many as your pipelines need for a clear picture",
        "guidance": "1 is without, and twice as fast",
    }
    offers = {"guidance": ("size: [512, 512]  # default: the pipeline's own",)}
    return TaskDraft(content, {"maximize": f"{name}.{next(iter(scorers))}"}, notes, offers)


def _perplexity(name: str, columns: Columns) -> TaskDraft:
    if columns.text is None:
        raise UsageError(
            "--goal: perplexity needs a column with texts, and there is none; add text"
        )
    content: dict[str, Any] = {"type": "perplexity"}
    if columns.text != "{text}":
        content["text"] = columns.text
    content["too_long"] = "cut"
    notes = {"too_long": "of texts longer than the models read, the beginning is left out"}
    return TaskDraft(content, {"minimize": f"{name}.perplexity"}, notes)


def _as_written(columns: str | tuple[str, ...]) -> str | list[str]:
    return columns if isinstance(columns, str) else list(columns)


def _choice(name: str, columns: Columns, models: ModelFacts) -> TaskDraft:
    if columns.options is None:
        raise UsageError(
            "--goal: choice needs a column with a list of options, or columns of them called a, b, "
            "c; name one choices"
        )
    content: dict[str, Any] = {"type": "choice", **_asked(columns)}
    if columns.options != "choices":
        content["options"] = _as_written(columns.options)
    if columns.labels is not None:
        content["labels"] = _as_written(columns.labels)
    if columns.answer_as is not None:
        content["answer_as"] = columns.answer_as
    notes = _add_chat(content, models)
    return TaskDraft(content, {"maximize": f"{name}.accuracy"}, notes)


def _generated(
    goal: str,
    name: str,
    rows: Sequence[Row],
    columns: Columns,
    models: ModelFacts,
    language: str | None,
) -> TaskDraft:
    content: dict[str, Any] = {"type": goal, **_asked(columns)}
    if goal == "vqa":
        if columns.picture is None:
            raise UsageError("--goal: vqa needs a column with pictures, and there is none")
        content["prompt"] = f"{IMAGE}\n{columns.prompt}"
        if columns.picture != "image":
            content["image"] = columns.picture
    references = _references(rows[:_SAMPLE], str(columns.answer))
    scorer, why = _scorer(references, language)
    content["scorer"] = scorer
    notes = {"scorer": why}
    if language is not None:
        content["language"] = language
        notes["language"] = "an answer in another language is wrong"
    notes |= _add_chat(content, models)
    content["max_new_tokens"], notes["max_new_tokens"] = _tokens(
        references, scorer, rows, columns, models
    )
    offers = {} if content.get("chat") else {"max_new_tokens": _OF_PLAIN_PROMPTS}
    metric = "rouge_l" if scorer == "rouge_l" else "accuracy"
    return TaskDraft(content, {"maximize": f"{name}.{metric}"}, notes, offers)


_OF_PLAIN_PROMPTS = (
    'stop: ["\\n\\n"]  # where models go on after the answer',
    "shots: [{question: ..., answer: ...}]  # solved problems before each prompt",
)


def _asked(columns: Columns) -> dict[str, Any]:
    prompt = {} if columns.prompt == "{question}" else {"prompt": columns.prompt}
    return prompt | ({} if columns.answer == "answer" else {"answer": columns.answer})


def _add_chat(content: dict[str, Any], models: ModelFacts) -> dict[str, str]:
    if not models.has_chat:
        return {}
    content["chat"] = True
    return {"chat": "the tokenizer has a chat template"}


def _references(rows: Sequence[Row], answer: str) -> list[str]:
    """The right answers; of several in a row the first."""
    found = []
    for row in rows:
        value = column(answer, row, "the data")
        value = value[0] if isinstance(value, list) and value else value
        if value is not None:
            found.append(str(value))
    return found


def _scorer(references: Sequence[str], language: str | None) -> tuple[str, str]:
    """How answers are compared with these, and why."""
    if all(one_number(text, language) is not None for text in references):
        return "last_number", "every answer of the data is a number"
    if all("\\" in text or "$" in text or "^" in text for text in references):
        return "math", "the answers of the data are expressions"
    typical = statistics.median(map(len, references))
    if typical <= _SHORT:
        return "contains", "right if the answer of the data is in the text; or exact"
    return "rouge_l", "the answers of the data are texts, so words are compared"


def _tokens(
    references: Sequence[str],
    scorer: str,
    rows: Sequence[Row],
    columns: Columns,
    models: ModelFacts,
) -> tuple[int, str]:
    """The most tokens of an answer, and why so many."""
    if models.reader is None:
        return _ROOM_TO_THINK, "the most that an answer may have; fewer are faster"
    fewest, most = _TOKENS
    longest = max(len(models.reader.encode(text)) for text in references)
    wanted = 8 * -(-longest * 3 // 16)  # half as many again, in steps of eight
    if scorer in ("last_number", "math") and longest < fewest:
        wanted = _ROOM_TO_THINK
    wanted, why = (
        max(fewest, min(most, wanted)),
        "the most that an answer may have; fewer are faster",
    )
    if models.positions is not None:
        prompts = [content(str(columns.prompt), row) for row in rows[:_SAMPLE]]
        asked = max(len(models.reader.encode(text)) for text in prompts)
        left = (models.positions - asked) // 2
        if left < wanted:
            return max(1, left), f"the models read {models.positions} tokens in all"
    return wanted, why
