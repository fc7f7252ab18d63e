"""The evaluator: a model in, scores with intervals and every problem's outcome out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evomerge_optuna.errors import CandidateError, NotFiniteError
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.data import Problem, load_problems, load_shots
from evomerge_optuna.evaluation.language import is_language
from evomerge_optuna.evaluation.prompts import prompts
from evomerge_optuna.evaluation.scorers import score_text
from evomerge_optuna.evaluation.scores import Score, mean, proportion
from evomerge_optuna.evaluation.user_code import score_rows
from evomerge_optuna.spec import (
    ChoiceTask,
    GenerateTask,
    PythonTask,
    StudySpec,
    Task,
)


@dataclass(frozen=True)
class Answer:
    """One problem, what the model made of it, and how that counts.

    `found` is what the scorer read in the text, and `match` its score. `right` takes the language
    into account; it is None where scores are no matter of right and wrong, as ROUGE-L is.
    """

    task: str
    prompt: str
    text: str
    reference: str
    found: str | None
    match: float
    language_right: bool
    right: bool | None


@dataclass(frozen=True)
class Choice:
    """One problem, the log-likelihoods of its options in nats, and whether the choice is right.

    `right_normalized` is that of the choice by log-likelihood per byte of the option.
    """

    task: str
    prompt: str
    options: tuple[str, ...]
    log_likelihoods: tuple[float, ...]
    reference: str
    right: bool
    right_normalized: bool


@dataclass(frozen=True)
class Likelihood:
    """One text and how likely the model finds it, in nats."""

    task: str
    text: str
    negative_log_likelihood: float
    tokens: int


@dataclass(frozen=True)
class Rated:
    """One row of a python task and the user's score for it."""

    task: str
    row: str
    score: float


Outcome = Answer | Choice | Likelihood | Rated


@dataclass(frozen=True)
class Evaluation:
    """All tasks of a spec on one split: scores by `TASK.METRIC`, and the outcomes behind them."""

    split: str
    scores: dict[str, Score]
    outcomes: tuple[Outcome, ...] = field(repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """The outcomes as JSON-serialisable rows, in the order of the data, or of the blocks."""
        return [asdict(outcome) for outcome in self.outcomes]

    def marks(self) -> dict[str, str]:
        """By task a 1 for each problem answered right and a 0 for each other, in order.

        Tasks without right and wrong have none.
        """
        marked = [
            o for o in self.outcomes if isinstance(o, Answer | Choice) and o.right is not None
        ]
        return {
            task: "".join(str(int(bool(o.right))) for o in marked if o.task == task)
            for task in dict.fromkeys(outcome.task for outcome in marked)
        }

    def require_finite(self) -> None:
        """Refuses what no sampler can learn from.

        Raises:
            NotFiniteError: a score is NaN or infinite.
        """
        for metric, score in self.scores.items():
            if not math.isfinite(score.value):
                raise NotFiniteError(
                    f"{metric} on {self.split} is {score.value}, not a finite number"
                )


class Evaluator:
    """Scores models on the tasks of a spec; data is loaded once for each split."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._problems: dict[tuple[str, str], list[Problem]] = {}
        self._shots: dict[str, list[Problem]] = {}

    def evaluate(
        self,
        model: Any,
        tokenizer: Any,
        split: str,
        block: Block | None = None,
        *,
        processor: Any | None = None,
    ) -> Evaluation:
        """Runs every task that has this split; a score may be NaN or infinite.

        Args:
            block: which problems of each task; all unless given.
            processor: of a vision-language model, for tasks with images.

        Raises:
            CandidateError: no text of a perplexity task has anything to predict, or the code of a
                python task fails.
            NotFiniteError: the likelihood of an option is NaN.
            SpecError: the data cannot be loaded, the tokenizer has no chat template where one is
                asked for, or code is not allowed or not as it should be.
        """
        outcomes: list[Outcome] = []
        for name, task in self._spec.tasks.items():
            if split in task.data.sources():
                problems = self._load(name, task, split)
                chosen = problems if block is None else block.of(problems)
                outcomes += self._run(name, task, model, tokenizer, chosen)
        return self._score(split, outcomes)

    def join(self, blocks: Sequence[Evaluation]) -> Evaluation:
        """The evaluation of these blocks of a split as one, its outcomes block by block."""
        return self._score(blocks[0].split, [o for block in blocks for o in block.outcomes])

    def _score(self, split: str, outcomes: list[Outcome]) -> Evaluation:
        scores: dict[str, Score] = {}
        for name, task in self._spec.tasks.items():
            if own := [outcome for outcome in outcomes if outcome.task == name]:
                found = task_scores(task, own, f"tasks.{name}.data.{split}")
                scores |= {f"{name}.{metric}": found[metric] for metric in task.metrics}
        return Evaluation(split=split, scores=scores, outcomes=tuple(outcomes))

    def _run(
        self, name: str, task: Task, model: Any, tokenizer: Any, problems: list[Problem]
    ) -> Sequence[Outcome]:
        if isinstance(task, GenerateTask):
            return self._generate(name, task, model, tokenizer, problems)
        if isinstance(task, ChoiceTask):
            return self._choose(name, task, model, tokenizer, problems)
        if isinstance(task, PythonTask):
            rated = score_rows(task, model, tokenizer, problems, f"tasks.{name}")
            return [Rated(name, p.text, score) for p, score in zip(problems, rated, strict=True)]
        return self._measure(name, model, tokenizer, problems)

    def _load(self, name: str, task: Task, split: str) -> list[Problem]:
        if (name, split) not in self._problems:
            self._problems[name, split] = load_problems(task, split, f"tasks.{name}")
        return self._problems[name, split]

    def _prompts(
        self, name: str, task: GenerateTask | ChoiceTask, tokenizer: Any, problems: list[Problem]
    ) -> list[str]:
        if name not in self._shots:
            self._shots[name] = load_shots(task, f"tasks.{name}")
        return prompts(task, self._shots[name], problems, tokenizer, f"tasks.{name}")

    def _generate(
        self, name: str, task: GenerateTask, model: Any, tokenizer: Any, problems: list[Problem]
    ) -> list[Answer]:
        from evomerge_optuna.evaluation.generation import generate

        texts = generate(
            model,
            tokenizer,
            self._prompts(name, task, tokenizer, problems),
            task.max_new_tokens,
            self._spec.evaluation.batch_size,
            stop=task.stop,
        )
        return [
            judge(name, task, problem, text) for problem, text in zip(problems, texts, strict=True)
        ]

    def _choose(
        self, name: str, task: ChoiceTask, model: Any, tokenizer: Any, problems: list[Problem]
    ) -> list[Choice]:
        from evomerge_optuna.evaluation.choice import log_likelihoods

        before = "" if task.chat else task.target_delimiter
        asked = self._prompts(name, task, tokenizer, problems)
        pairs = [
            (prompt, before + option)
            for prompt, problem in zip(asked, problems, strict=True)
            for option in problem.options
        ]
        found = iter(log_likelihoods(model, tokenizer, pairs, self._spec.evaluation.batch_size))
        return [
            choose(name, problem, [next(found) for _ in problem.options]) for problem in problems
        ]

    def _measure(
        self, name: str, model: Any, tokenizer: Any, problems: list[Problem]
    ) -> list[Likelihood]:
        from evomerge_optuna.evaluation.likelihoods import negative_log_likelihoods

        texts = [problem.text for problem in problems]
        found = negative_log_likelihoods(model, tokenizer, texts, self._spec.evaluation.batch_size)
        return [
            Likelihood(name, text, nll, tokens)
            for text, (nll, tokens) in zip(texts, found, strict=True)
        ]


def judge(name: str, task: GenerateTask, problem: Problem, text: str) -> Answer:
    """The paper's rule: right when the answer is right and the text is in the language."""
    reference = problem.reference or ""
    found, match = score_text(task.scorer, text, reference)
    language_right = task.language is None or is_language(text, task.language)
    return Answer(
        task=name,
        prompt=problem.text,
        text=text,
        reference=reference,
        found=found,
        match=match,
        language_right=language_right,
        right=None if task.scorer == "rouge_l" else match == 1 and language_right,
    )


def task_scores(task: Task, outcomes: Sequence[Any], where: str) -> dict[str, Score]:
    """The scores of a task's outcomes, by metric.

    Raises:
        CandidateError: see `perplexity`.
    """
    if isinstance(task, GenerateTask):
        return answer_scores(task, outcomes)
    if isinstance(task, ChoiceTask):
        return choice_scores(outcomes)
    if isinstance(task, PythonTask):
        return {"score": mean([outcome.score for outcome in outcomes])}
    return {"perplexity": perplexity(outcomes, where)}


def answer_scores(task: GenerateTask, answers: Sequence[Answer]) -> dict[str, Score]:
    """The metrics of the task.

    Accuracy as the paper counts it, that of the number or match alone, the share in the language.
    A text in another language has a ROUGE-L of zero (paper, section 4.2).
    """
    matches = proportion([answer.match == 1 for answer in answers])
    scores = {
        "accuracy": proportion([bool(answer.right) for answer in answers]),
        "number_accuracy": matches,
        "match_accuracy": matches,
        "rouge_l": mean([answer.match * answer.language_right for answer in answers]),
        "language_share": proportion([answer.language_right for answer in answers]),
    }
    return {name: scores[name] for name in task.metrics}


def choose(name: str, problem: Problem, log_likelihoods: Sequence[float]) -> Choice:
    """The likeliest option, and the likeliest for its length; of equals the first.

    Raises:
        NotFiniteError: a likelihood is NaN.
    """
    if any(map(math.isnan, log_likelihoods)):
        raise NotFiniteError(f"tasks.{name}: the log-likelihood of an option is not a number")
    per_byte = [
        found / len(option.encode())
        for found, option in zip(log_likelihoods, problem.options, strict=True)
    ]

    def is_right(by: Sequence[float]) -> bool:
        return problem.options[by.index(max(by))] == problem.reference

    return Choice(
        task=name,
        prompt=problem.text,
        options=problem.options,
        log_likelihoods=tuple(log_likelihoods),
        reference=problem.reference or "",
        right=is_right(log_likelihoods),
        right_normalized=is_right(per_byte),
    )


def choice_scores(choices: Sequence[Choice]) -> dict[str, Score]:
    """Accuracy of the likeliest option, and of the likeliest per UTF-8 byte of its text.

    lm-evaluation-harness calls them acc and acc_bytes; its acc_norm divides by characters.
    """
    return {
        "accuracy": proportion([choice.right for choice in choices]),
        "normalized_accuracy": proportion([choice.right_normalized for choice in choices]),
    }


def perplexity(texts: Sequence[Likelihood], where: str) -> Score:
    """exp of the mean over texts of the negative log-likelihood per token; see PerplexityTask.

    Raises:
        CandidateError: to this model's tokenizer no text has more than one token.
    """
    per_token = [text.negative_log_likelihood / text.tokens for text in texts if text.tokens]
    if not per_token:
        raise CandidateError(f"{where}: no text has more than one token; give longer texts")
    return mean(per_token, _exp)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
