"""The evaluator: a model in, scores with intervals and every problem's outcome out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evomerge_optuna.errors import CandidateError, NotFiniteError
from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.data import Problem, load_problems
from evomerge_optuna.evaluation.language import is_language
from evomerge_optuna.evaluation.scores import Score, mean, proportion
from evomerge_optuna.spec import GenerateTask, PerplexityTask, StudySpec


@dataclass(frozen=True)
class Answer:
    """One problem, what the model made of it, and how that counts."""

    task: str
    prompt: str
    text: str
    reference: str
    number: str | None
    number_right: bool
    language_right: bool
    right: bool


@dataclass(frozen=True)
class Likelihood:
    """One text and how likely the model finds it, in nats."""

    task: str
    text: str
    negative_log_likelihood: float
    tokens: int


@dataclass(frozen=True)
class Evaluation:
    """All tasks of a spec on one split: scores by `TASK.METRIC`, and the outcomes behind them."""

    split: str
    scores: dict[str, Score]
    outcomes: tuple[Answer | Likelihood, ...] = field(repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """The outcomes as JSON-serialisable rows, in the order of the data, or of the blocks."""
        return [asdict(outcome) for outcome in self.outcomes]

    def marks(self) -> dict[str, str]:
        """By generate task a 1 for each answer that is right and a 0 for each other, in order."""
        answers = [outcome for outcome in self.outcomes if isinstance(outcome, Answer)]
        return {
            task: "".join(str(int(a.right)) for a in answers if a.task == task)
            for task in dict.fromkeys(answer.task for answer in answers)
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

    def evaluate(
        self, model: Any, tokenizer: Any, split: str, block: Block | None = None
    ) -> Evaluation:
        """Runs every task that has this split; a score may be NaN or infinite.

        Args:
            block: which problems of each task; all unless given.

        Raises:
            CandidateError: no text of a perplexity task has anything to predict.
            SpecError: the data cannot be loaded.
        """
        outcomes: list[Answer | Likelihood] = []
        for name, task in self._spec.tasks.items():
            if split not in task.data.sources():
                continue
            problems = self._load(name, task, split)
            chosen = problems if block is None else block.of(problems)
            if isinstance(task, GenerateTask):
                outcomes += self._generate(name, task, model, tokenizer, chosen)
            else:
                outcomes += self._measure(name, task, model, tokenizer, chosen)
        return self._score(split, outcomes)

    def join(self, blocks: Sequence[Evaluation]) -> Evaluation:
        """The evaluation of these blocks of a split as one, its outcomes block by block."""
        return self._score(blocks[0].split, [o for block in blocks for o in block.outcomes])

    def _score(self, split: str, outcomes: list[Answer | Likelihood]) -> Evaluation:
        scores: dict[str, Score] = {}
        for name, task in self._spec.tasks.items():
            own = [outcome for outcome in outcomes if outcome.task == name]
            if not own:
                continue
            if isinstance(task, GenerateTask):
                answers = [outcome for outcome in own if isinstance(outcome, Answer)]
                scores |= {f"{name}.{m}": s for m, s in answer_scores(task, answers).items()}
            else:
                texts = [outcome for outcome in own if isinstance(outcome, Likelihood)]
                scores[f"{name}.perplexity"] = perplexity(texts, f"tasks.{name}.data.{split}")
        return Evaluation(split=split, scores=scores, outcomes=tuple(outcomes))

    def _load(self, name: str, task: GenerateTask | PerplexityTask, split: str) -> list[Problem]:
        if (name, split) not in self._problems:
            self._problems[name, split] = load_problems(task, split, f"tasks.{name}")
        return self._problems[name, split]

    def _generate(
        self, name: str, task: GenerateTask, model: Any, tokenizer: Any, problems: list[Problem]
    ) -> list[Answer]:
        from evomerge_optuna.evaluation.generation import generate

        prompts = [problem.text for problem in problems]
        texts = generate(
            model, tokenizer, prompts, task.max_new_tokens, self._spec.evaluation.batch_size
        )
        return [
            judge(name, task, problem, text) for problem, text in zip(problems, texts, strict=True)
        ]

    def _measure(
        self, name: str, task: PerplexityTask, model: Any, tokenizer: Any, problems: list[Problem]
    ) -> list[Likelihood]:
        from evomerge_optuna.evaluation.generation import negative_log_likelihoods

        texts = [problem.text for problem in problems]
        found = negative_log_likelihoods(model, tokenizer, texts, self._spec.evaluation.batch_size)
        return [
            Likelihood(name, text, nll, tokens)
            for text, (nll, tokens) in zip(texts, found, strict=True)
        ]


def judge(name: str, task: GenerateTask, problem: Problem, text: str) -> Answer:
    """The paper's rule: right when the last number is right and the text is in the language."""
    number, wanted = last_number(text), last_number(problem.reference or "")
    number_right = wanted is not None and number == wanted
    language_right = task.language is None or is_language(text, task.language)
    return Answer(
        task=name,
        prompt=problem.text,
        text=text,
        reference=problem.reference or "",
        number=None if number is None else str(number),
        number_right=number_right,
        language_right=language_right,
        right=number_right and language_right,
    )


def answer_scores(task: GenerateTask, answers: Sequence[Answer]) -> dict[str, Score]:
    """Accuracy as the paper counts it, of the number alone, and the share in the language."""
    scores = {
        "accuracy": proportion([answer.right for answer in answers]),
        "number_accuracy": proportion([answer.number_right for answer in answers]),
        "language_share": proportion([answer.language_right for answer in answers]),
    }
    return {name: scores[name] for name in task.metrics}


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
