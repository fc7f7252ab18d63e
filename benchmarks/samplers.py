"""Which sampler finds a good recipe in few trials: searches of one study, seed by seed.

    python benchmarks/samplers.py FOLDER [--study quickstart_dfs] [--sampler gp] [--seed 0]

The study is an example's name, or the file of a spec of your own. `gp-alone` is the sampler `gp`
without the starts, with which the others begin.

Each search is a study in a database of its own below FOLDER, and a process of its own. What is
there is not searched again: run it in pieces, as many at once as there are processors, and stop it
where you like; the table shows what is there. The score is that of `study test`, on the test split,
of the recipe that it would choose after so many trials.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from evomerge_optuna.report.numbers import show_number
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import load_spec
from evomerge_optuna.spec.samplers import AUTO, SAMPLERS
from evomerge_optuna.spec.search import SamplerSpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import exists, open_study

STUDIES = Path(__file__).parent.parent / "studies"
ALONE = "-alone"  # without starts
NAMES = [name + ending for name in (*SAMPLERS, AUTO) for ending in ("", ALONE)]


def spec_file(study: str) -> Path:
    """The file of an example, or one that is named by its path."""
    return Path(study) if study.endswith(".yaml") else STUDIES / f"{study}.yaml"


def figures_of(folder: Path, study: str, name: str, seed: int) -> Path:
    """The file of what a search has found."""
    return folder / spec_file(study).stem / f"{name}-{seed}.json"


def search(folder: Path, study: str, name: str, seed: int, budgets: Sequence[int]) -> None:
    """Runs one search, or goes on with it, and stores the scores after each budget."""
    file = figures_of(folder, study, name, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    store = open_store(f"sqlite:///{file.with_suffix('.db')}")
    given = load_spec(spec_file(study))
    spec = given.model_copy(
        update={
            "study": spec_file(study).stem,
            "sampler": SamplerSpec(name=name.removesuffix(ALONE), seed=seed),
            "starts": not name.endswith(ALONE),
            "trials": max(budgets),
        }
    )
    known = exists(store, spec.study)
    merge_study = open_study(store, spec.study) if known else create_study(store, spec)
    for budget in sorted(budgets):
        if str(budget) in found:
            continue
        run_trials(merge_study, budget)
        scorer = FinalScorer(merge_study)
        scorer.score_finalists()
        chosen = find_trial(merge_study, "best")
        target = spec.objective.target
        scores = scorer.final_scores(chosen)[-1].scores
        found[str(budget)] = {split: scores[split][target].value for split in scores}
        found[str(budget)]["best on search"] = merge_study.ranked()[0].values[0]
        found["sampler"] = merge_study.spec.sampler.name
        file.write_text(json.dumps(found))


def table_of(folder: Path, study: str, budgets: Sequence[int]) -> Table:
    """Test scores of each sampler, by seed."""
    files = sorted(folder.glob(f"{spec_file(study).stem}/*.json"))
    seeds = sorted({int(file.stem.rpartition("-")[2]) for file in files})
    table = Table(title=f"{study}: test score of the recipe that is chosen")
    for column in ("sampler", "trials", *map(str, seeds), "worst", "median"):
        table.add_column(column)
    spec = load_spec(spec_file(study))
    metric = spec.metric(spec.objective.target)
    for name in NAMES:
        kept = {
            seed: json.loads(file.read_text())
            for seed in seeds
            if (file := figures_of(folder, study, name, seed)).exists()
        }
        for budget in map(str, sorted(budgets)):
            tests = {seed: found[budget]["test"] for seed, found in kept.items() if budget in found}
            if tests:
                shown = {seed: show_number(value, metric) for seed, value in tests.items()}
                worst = min(tests.values(), key=lambda value: spec.objective.sign * value)
                both = (worst, statistics.median(tests.values()))
                table.add_row(
                    name,
                    budget,
                    *(shown.get(seed, "") for seed in seeds),
                    *(show_number(value, metric) for value in both),
                )
    return table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--study", default="quickstart", show_default=True)
@click.option("--sampler", "names", multiple=True, type=click.Choice(NAMES))
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(0), default=range(10))
@click.option("--trials", "budgets", multiple=True, type=click.IntRange(1), default=(40, 160))
@click.option("--here", is_flag=True, help="Search in this process, and print nothing.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    folder: Path,
    study: str,
    names: Sequence[str],
    seeds: Sequence[int],
    budgets: Sequence[int],
    here: bool,
    json_file: Path | None,
) -> None:
    """Search with each sampler and seed, and print the table of all that FOLDER has."""
    for seed in seeds:
        for name in names:
            if here:
                search(folder, study, name, seed, budgets)
                continue
            options = ["--study", study, "--sampler", name, "--seed", str(seed), "--here"]
            options += [option for budget in budgets for option in ("--trials", str(budget))]
            subprocess.run([sys.executable, __file__, str(folder), *options], check=True)
    if here:
        return
    Console(width=160).print(table_of(folder, study, budgets))
    if json_file:
        files = sorted(folder.glob(f"{spec_file(study).stem}/*.json"))
        json_file.write_text(
            json.dumps({file.stem: json.loads(file.read_text()) for file in files})
        )


if __name__ == "__main__":
    main()
