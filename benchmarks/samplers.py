"""Which sampler finds the best layer stack: ours, cmaes itself, margins, categories.

    python benchmarks/samplers.py [--trials 120] [--seeds 5] [--population 24] [--json PATH]

The search of studies/quickstart_dfs.yaml, the same population, start and budget for each; best
search score of each seed. All of them begin at the identity path and score it first.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import cmaes
import numpy as np
import optuna
from rich.console import Console
from rich.table import Table

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.search.samplers import make_sampler
from evomerge_optuna.spaces.stack import StackSpace
from evomerge_optuna.spec import SamplerSpec, StackStudySpec, load_spec

QUICKSTART = Path(__file__).parent.parent / "studies" / "quickstart_dfs.yaml"
Score = Callable[[dict[str, float]], float]


@dataclass(frozen=True)
class Budget:
    """What each sampler is given; one search is one seed."""

    trials: int
    population: int
    seed: int


def ours(space: StackSpace, score: Score, given: Budget) -> float:
    """Thresholded floats, Optuna's CmaEsSampler as `study run` makes it."""
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial(space.baseline())
    spec = SamplerSpec(seed=given.seed, population=given.population)
    for position in range(given.trials):
        trial = study.ask()
        study.sampler = make_sampler(spec, position)
        values = {n: trial.suggest_float(n, r.low, r.high) for n, r in space.ranges().items()}
        study.tell(trial, score(values))
    return study.best_value


def told(
    optimizer: Any,
    values_of: Callable[[Any], dict[str, float]],
    space: StackSpace,
    score: Score,
    trials: int,
) -> float:
    """One of cmaes' optimizers, asked and told generation by generation."""
    found = [score(space.baseline())]
    while len(found) < trials:
        generation = []
        for _ in range(optimizer.population_size):
            chosen = optimizer.ask()
            found.append(score(values_of(chosen)))
            generation.append((chosen, -found[-1]))
        optimizer.tell(generation)
    return max(found[:trials])


def directly(kind: type, space: StackSpace, score: Score, given: Budget) -> float:
    """cmaes itself on the ranges scaled to 0..1, with the same start, deviation and bounds."""
    ranges = space.ranges()
    optimizer = kind(
        mean=np.full(len(ranges), 0.5),
        sigma=1 / 6,
        bounds=np.array([[0.0, 1.0]] * len(ranges)),
        seed=given.seed,
        population_size=given.population,
    )

    def values_of(x: np.ndarray) -> dict[str, float]:
        return {
            n: r.low + u * (r.high - r.low) for u, (n, r) in zip(x, ranges.items(), strict=True)
        }

    return told(optimizer, values_of, space, score, given.trials)


def split_parameters(space: StackSpace) -> tuple[list[str], list[str], list[bool]]:
    """Indicators, the others, and which indicators the identity path has."""
    names = list(space.ranges())
    indicators = [name for name in names if name.startswith("layer.")]
    identity = space.baseline()
    others = [name for name in names if name not in indicators]
    return indicators, others, [identity[name] > 0 for name in indicators]


def with_margin(space: StackSpace, score: Score, given: Budget) -> float:
    """CMA-ES with margin on integer indicators, as Optuna has it; 1 is a change of the identity."""
    indicators, others, identity = split_parameters(space)
    ranges = space.ranges()
    sampler = optuna.samplers.CmaEsSampler(
        with_margin=True, seed=given.seed, popsize=given.population
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(dict.fromkeys(indicators, 0) | dict.fromkeys(others, 0.0))
    for _ in range(given.trials):
        trial = study.ask()
        changed = [trial.suggest_int(name, 0, 1) for name in indicators]
        values = {
            name: 0.4 if on != bool(flip) else -0.4
            for name, on, flip in zip(indicators, identity, changed, strict=True)
        }
        values |= {n: trial.suggest_float(n, ranges[n].low, ranges[n].high) for n in others}
        study.tell(trial, score(values))
    return study.best_value


def cat_cma(space: StackSpace, score: Score, given: Budget) -> float:
    """CatCMA: a Bernoulli distribution for each indicator, CMA-ES for the others."""
    indicators, others, identity = split_parameters(space)
    ranges = space.ranges()
    flip = 1 / len(indicators)
    optimizer = cmaes.CatCMA(
        mean=np.zeros(len(others)),
        sigma=(ranges[others[0]].high - ranges[others[0]].low) / 6,
        cat_num=np.full(len(indicators), 2),
        cat_param=np.array([[flip, 1 - flip] if on else [1 - flip, flip] for on in identity]),
        bounds=np.array([[ranges[n].low, ranges[n].high] for n in others]),
        seed=given.seed,
        population_size=given.population,
    )

    def values_of(chosen: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
        x, categories = chosen
        on = {n: 0.4 if c[1] else -0.4 for n, c in zip(indicators, categories, strict=True)}
        return on | dict(zip(others, x.tolist(), strict=True))

    return told(optimizer, values_of, space, score, given.trials)


SAMPLERS: dict[str, Callable[[StackSpace, Score, Budget], float]] = {
    "ours: Optuna's CmaEsSampler, thresholded floats": ours,
    "cmaes.CMA": lambda *given: directly(cmaes.CMA, *given),
    "cmaes.SepCMA": lambda *given: directly(cmaes.SepCMA, *given),
    "CmaEsSampler with margin, integers": with_margin,
    "cmaes.CatCMA": cat_cma,
}


@click.command()
@click.option("--trials", default=120, show_default=True, type=click.IntRange(2))
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--population", default=24, show_default=True, type=click.IntRange(4))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(trials: int, seeds: int, population: int, json_file: Path | None) -> None:
    """Print the best score of each sampler and seed."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spec = load_spec(QUICKSTART)
    assert isinstance(spec, StackStudySpec)
    builder, evaluator = candidate_builder(spec.evaluation), Evaluator(spec)
    space = StackSpace(spec.stack, spec.models, dict.fromkeys(spec.models, 6))

    def score(values: dict[str, float]) -> float:
        engine = builder.build(space.recipe(values)).engine
        scores = evaluator.evaluate(engine, "search").scores
        return scores[spec.objective.target].value

    table = Table(title=f"Best search score of {trials} candidates")
    for column in ("sampler", *(f"seed {seed}" for seed in range(seeds)), "median"):
        table.add_column(column)
    results = {}
    for name, search in SAMPLERS.items():
        found = [search(space, score, Budget(trials, population, seed)) for seed in range(seeds)]
        results[name] = found
        table.add_row(name, *(f"{x:.3f}" for x in found), f"{statistics.median(found):.3f}")
        print(name, found, flush=True)
    Console(width=120).print(table)
    if json_file:
        json_file.write_text(json.dumps({"trials": trials, "scores": results}, indent=1))


if __name__ == "__main__":
    main()
