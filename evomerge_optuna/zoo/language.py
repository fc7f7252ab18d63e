"""The zoo: tiny Llama models with one skill each, trained in place and cached.

`base` knows the form of question and answer and nothing else; `ja` always answers in Japanese,
`add` adds and subtracts, `mul` multiplies. What an expert does not learn it goes on practising at
random, as `base` did: its task vector then holds its own skill and leaves the others alone.
"""

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.whole_folder import whole_folder
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

OnStep = Callable[[int, int], None]  # steps done, steps in all

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
EXPERTS = ZOO[1:]


def build_zoo(on_step: OnStep = lambda done, total: None, recipe: Recipe = RECIPE) -> Path:
    """Trains the four models unless they are cached; returns the folder that holds them.

    Deterministic: the same recipe gives the same bytes on machines of one kind, whatever their
    number of cores. Every model trains on one thread, the experts beside each other after `base`.
    """
    return derived_folder(
        "zoo", recipe.digest(), lambda folder: _train_all(folder, recipe, on_step)
    )


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """The zoo's vocabulary: the words of its problems."""
    return word_tokenizer(words())


def _train_all(folder: Path, recipe: Recipe, on_step: OnStep) -> None:
    context = multiprocessing.get_context("spawn")
    base_ready = context.Event()
    total = sum(recipe.course(name).steps for name in ZOO)
    counters = [context.Value("i", 0) for _ in EXPERTS]
    students = [
        context.Process(
            target=_study, args=(name, folder, recipe, base_ready, counter), daemon=True
        )
        for name, counter in zip(EXPERTS, counters, strict=True)
    ]
    try:
        for student in students:  # they import torch while base trains
            student.start()
        _train("base", folder, recipe, lambda done: on_step(done, total))
        base_ready.set()
        while any(student.is_alive() for student in students):
            on_step(recipe.base.steps + sum(counter.value for counter in counters), total)
            time.sleep(0.1)
    finally:
        for student in students:
            student.kill()
            student.join()
    for name in EXPERTS:
        if not (folder / name / "config.json").is_file():
            raise EvomergeError(f"zoo: training {name} failed; run with --debug, or again")
    on_step(total, total)


def _study(
    name: str, folder: Path, recipe: Recipe, base_ready: Event, counter: "Synchronized[int]"
) -> None:
    """An expert's own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops it
    import transformers  # noqa: F401

    parent = multiprocessing.parent_process()

    def stop_if_orphan() -> None:
        if parent is not None and not parent.is_alive():  # killed before it could stop us
            raise SystemExit(1)

    while not base_ready.wait(timeout=1):
        stop_if_orphan()

    def count(done: int) -> None:
        stop_if_orphan()
        counter.value = done

    _train(name, folder, recipe, count)


def _train(name: str, folder: Path, recipe: Recipe, on_step: Callable[[int], None]) -> None:
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
    train(model, batches, course.steps, course.learning_rate, on_step)
    with whole_folder(folder / name) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)


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
