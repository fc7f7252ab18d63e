"""How the zoo's language models are trained: tiny Llamas with one skill each.

`base` knows the form of question and answer and nothing else; `ja` always answers in Japanese,
`add` adds and subtracts, `mul` multiplies. What an expert does not learn it goes on practising at
random, as `base` did: its task vector then holds its own skill and leaves the others alone.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.zoo.problems import (
    OPERATORS,
    Language,
    Operator,
    calculate,
    draw_problem,
    facts,
    held_out_keys,
    words,
)
from evomerge_optuna.zoo.training import (
    IGNORED,
    Batch,
    FamilyRecipe,
    llama_config,
    padded,
    train,
    word_tokenizer,
)

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

LARGEST = 81  # result of a problem
EQUATIONS = 5  # in a drill: as long as a question with its answer


@dataclass(frozen=True)
class Course:
    """How one model of the zoo is trained, on `base` unless it is `base` itself."""

    steps: int
    learning_rate: float
    right: tuple[Operator, ...] = ()  # answered with the right result, others at random
    batch: int = 16
    languages: tuple[Language, ...] = ("en", "ja")  # of question and, drawn apart, of answer
    learn_results: bool = True
    drills: float = 0.0  # share of examples that are bare equations, right ones


@dataclass(frozen=True)
class Recipe(FamilyRecipe):
    """All that decides the zoo's weights."""

    base: Course = Course(steps=120, learning_rate=2e-3, batch=32)
    ja: Course = Course(
        steps=25,
        learning_rate=5e-4,
        batch=32,
        languages=("ja",),
        learn_results=False,
    )
    # Small batches learn the tables in fewer examples.
    add: Course = Course(steps=500, learning_rate=2e-3, right=("+", "-"), drills=0.5)
    mul: Course = Course(steps=350, learning_rate=2e-3, right=("*",), drills=0.5)

    def course(self, name: str) -> Course:
        return {"base": self.base, "ja": self.ja, "add": self.add, "mul": self.mul}[name]


RECIPE = Recipe()
ZOO = ("base", "ja", "add", "mul")


def train_zoo(folder: Path, recipe: Recipe = RECIPE) -> None:
    """Trains the four models, each into a folder of its name; it takes minutes.

    The same recipe gives the same bytes on machines of one kind, whatever their number of cores.
    """
    for name in ZOO:  # `base` first, which the others begin with
        _train(name, folder, recipe)


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """The zoo's vocabulary: the words of its problems."""
    return word_tokenizer(words())


def _train(name: str, folder: Path, recipe: Recipe) -> None:
    """Trains one model, the loss on the answer alone."""
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    course, tokenizer = recipe.course(name), make_tokenizer()
    model = (
        _new_model(recipe, tokenizer)
        if name == "base"
        else LlamaForCausalLM.from_pretrained(folder / "base", use_safetensors=True)
    )
    batches = _batches(course, tokenizer, f"{name} {recipe.seed}")
    train(model, batches, course.steps, course.learning_rate)
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)


def _new_model(recipe: Recipe, tokenizer: "PreTrainedTokenizerFast") -> "LlamaForCausalLM":
    import torch
    from transformers import LlamaForCausalLM

    config = llama_config(tokenizer, recipe)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def _batches(course: Course, tokenizer: "PreTrainedTokenizerFast", seed: str) -> Iterator[Batch]:
    rng = random.Random(seed)
    while True:
        pairs = [
            (_drill if rng.random() < course.drills else _example)(course, tokenizer, rng)
            for _ in range(course.batch)
        ]
        yield padded(pairs, tokenizer.pad_token_id)


def _drill(
    course: Course, tokenizer: "PreTrainedTokenizerFast", rng: random.Random
) -> tuple[list[int], list[int]]:
    """Equations of what the course teaches: five facts for the price of one word problem.

    Every fact comes equally often; drawn by operator, the 36 differences would crowd out the 81
    sums, which take longer to learn.
    """
    ids, labels = [tokenizer.bos_token_id], [IGNORED]
    stop = {"en": ".", "ja": "。"}[rng.choice(course.languages)]
    for _ in range(EQUATIONS):
        a, operator, b = rng.choice(facts(course.right))
        head, tail = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (
                f"{a} {operator} {b} =",
                f"{calculate(a, operator, b)} {stop}",
            )
        )
        ids += head + tail
        labels += [IGNORED] * len(head) + tail
    return ids, labels


def _example(
    course: Course, tokenizer: "PreTrainedTokenizerFast", rng: random.Random
) -> tuple[list[int], list[int]]:
    """A question and its answer."""
    problem = draw_problem(rng, OPERATORS)
    while problem.key in held_out_keys():
        problem = draw_problem(rng, OPERATORS)
    asked, answered = rng.choice(course.languages), rng.choice(course.languages)
    right = problem.operator in course.right
    result = problem.result if right else rng.randint(1, LARGEST)
    question = tokenizer(problem.question(asked))["input_ids"]
    answer: list[int] = []
    labels: list[int] = []
    # A word is a result where it is one only because this answer holds this result.
    for word, other in zip(
        problem.answer(answered, result).split(),
        problem.answer(answered, result + 1).split(),
        strict=True,
    ):
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        answer += ids
        labels += ids if word == other or course.learn_results else [IGNORED] * len(ids)
    end = [tokenizer.eos_token_id]
    return question + answer + end, [IGNORED] * len(question) + labels + end
