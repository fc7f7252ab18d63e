"""How fast are problems answered: our batches beside plain ones of `model.generate`.

    python benchmarks/generation.py [--batch-size 32] [--repeats 5] [--problems 200] [--json PATH]

Two models answer the zoo's problems, both ways in turns, on one thread: `zoo:mul`, whose answers
are all about as long, and a merge as a search tries them, some of whose answers never end. Plain
batches are padded, in the order of the data, and go on until their last answer ends. Forward
passes are counted, too: where reading the weights takes most of the time, as on a GPU, each costs
the same.
"""

import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
import transformers

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec import EvaluationSpec
from evomerge_optuna.zoo.problems import load_problems

WEIGHTS = {"zoo:ja": 2.0, "zoo:add": 1.5, "zoo:mul": 1.0}
NEW_TOKENS = 64
SHOTS = 5


@dataclass(frozen=True)
class Workload:
    """Prompts, and what they are to show."""

    name: str
    prompts: list[str]


def workloads(problems: int) -> list[Workload]:
    """So many of the zoo's problems: alone; after the same examples; after some of their own."""
    drawn = random.Random(0)
    splits = load_problems()
    solved = [f"{row['question']} {row['solution']}" for row in splits["dev"]]
    questions = list(splits["search"]["question"][:problems])
    examples = " ".join(solved[:SHOTS])
    mixed = [
        " ".join([*drawn.sample(solved, drawn.randint(0, SHOTS)), question])
        for question in questions
    ]
    return [
        Workload("problems alone", questions),
        Workload(f"after {SHOTS} shared examples", [f"{examples} {q}" for q in questions]),
        Workload(f"after 0 to {SHOTS} examples of their own", mixed),
    ]


@torch.inference_mode()
def generate_plainly(model: Any, tokenizer: Any, prompts: list[str], batch_size: int) -> list[str]:
    """The usual way: batches in the order of the data, each as long as its longest answer."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = tokenizer(prompts[start : start + batch_size], padding=True, return_tensors="pt")
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def a_merge(spec: EvaluationSpec) -> TextEngine:
    configuration = {
        "merge_method": "task_arithmetic",
        "base_model": "zoo:base",
        "models": [{"model": m, "parameters": {"weight": w}} for m, w in WEIGHTS.items()],
        "parameters": {"normalize": False},
    }
    recipe = MergeRecipe(configuration=configuration, seed=0)
    return candidate_builder(spec).build(recipe).engine


@dataclass(frozen=True)
class Run:
    """What it took to answer."""

    seconds: float
    passes: int
    answers: list[str]


def measure(model: Any, answer: Callable[[], list[str]]) -> Run:
    passes: list[None] = []
    hook = model.register_forward_pre_hook(lambda *_: passes.append(None))
    start = time.perf_counter()
    answers = answer()
    stop = time.perf_counter()
    hook.remove()
    return Run(stop - start, len(passes), answers)


@click.command()
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1))
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--problems", default=200, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(batch_size: int, repeats: int, problems: int, json_file: Path | None) -> None:
    """Print problems per second and their ratio."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    spec = EvaluationSpec(device="cpu", batch_size=batch_size)
    engines = {"zoo:mul": load_engine(local_folder("zoo:mul"), spec), "a merge": a_merge(spec)}
    rows = []
    for (name, engine), work in itertools.product(engines.items(), workloads(problems)):
        raw = engine.raw("a benchmark")
        plainly = partial(generate_plainly, raw.model, raw.tokenizer, work.prompts, batch_size)
        ours = partial(engine.generate, work.prompts, Greedy(NEW_TOKENS))
        pairs = [
            (measure(raw.model, plainly), measure(raw.model, ours))
            for _ in range(repeats + 1)  # the first warms up
        ]
        theirs, found = pairs[-1]
        row = {
            "model": name,
            "workload": work.name,
            "plain": problems / statistics.median(plain.seconds for plain, _ in pairs[1:]),
            "ours": problems / statistics.median(our.seconds for _, our in pairs[1:]),
            "times": statistics.median(p.seconds / o.seconds for p, o in pairs[1:]),
            "plain passes": theirs.passes,
            "our passes": found.passes,
            "alike": sum(map(str.__eq__, theirs.answers, found.answers)) / problems,
        }
        rows.append(row)
        click.echo(
            f"{name:<10}{work.name:<38}{row['plain']:6.0f}/s plain{row['ours']:6.0f}/s ours"
            f"{row['times']:6.2f} times{theirs.passes:6} passes to{found.passes:5}"
            f"{row['alike']:7.1%} alike"
        )
    if json_file:
        json_file.write_text(json.dumps({"batch size": batch_size, "rows": rows}))


if __name__ == "__main__":
    main()
