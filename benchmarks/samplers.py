"""Which sampler finds a good recipe in few trials: the quickstart's searches, seed by seed.

    python benchmarks/samplers.py FOLDER [--study quickstart_dfs] [--sampler gp] [--seed 0]

Each search is a study in a database of its own below FOLDER, and a process of its own. What is
there is not searched again: run it in pieces, as many at once as there are processors, and stop it
where you like; the table shows what is there. The score is that of `study test`, on the test split,
of the recipe that it would choose after so many trials.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import load_spec
from evomerge_optuna.spec.search import SamplerSpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import exists, open_study

STUDIES = Path(__file__).parent.parent / "studies"
SAMPLERS: Mapping[str, tuple[str, bool]] = {  # a name and whether it begins with starts, by name
    "cmaes-alone": ("cmaes", False),
    "cmaes": ("cmaes", True),
    "catcma": ("catcma", True),
    "gp-alone": ("gp", False),
    "gp": ("gp", True),
    "tpe": ("tpe", True),
    "nsga2": ("nsga2", True),
    "random": ("random", False),
    "auto": ("auto", True),
}


def figures_of(folder: Path, study: str, name: str, seed: int) -> Path:
    """The file of what a search has found."""
    return folder / study / f"{name}-{seed}.json"


def search(folder: Path, study: str, name: str, seed: int, budgets: Sequence[int]) -> None:
    """Runs one search, or goes on with it, and stores the scores after each budget."""
    file = figures_of(folder, study, name, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    store = open_store(f"sqlite:///{file.with_suffix('.db')}")
    sampler, starts = SAMPLERS[name]
    given = load_spec(STUDIES / f"{study}.yaml")
    spec = given.model_copy(
        update={
            "study": study,
            "sampler": SamplerSpec(name=sampler, seed=seed),
            "starts": starts,
            "trials": max(budgets),
        }
    )
    merge_study = open_study(store, study) if exists(store, study) else create_study(store, spec)
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
    files = sorted(folder.glob(f"{study}/*.json"))
    seeds = sorted({int(file.stem.rpartition("-")[2]) for file in files})
    table = Table(title=f"{study}: test score of the recipe that is chosen")
    for column in ("sampler", "trials", *map(str, seeds), "least", "median"):
        table.add_column(column)
    for name in SAMPLERS:
        kept = {
            seed: json.loads(file.read_text())
            for seed in seeds
            if (file := figures_of(folder, study, name, seed)).exists()
        }
        for budget in map(str, sorted(budgets)):
            tests = {seed: found[budget]["test"] for seed, found in kept.items() if budget in found}
            if tests:
                cells = [f"{tests[seed]:.1%}" if seed in tests else "" for seed in seeds]
                least, median = min(tests.values()), statistics.median(tests.values())
                table.add_row(name, budget, *cells, f"{least:.1%}", f"{median:.1%}")
    return table


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--study", default="quickstart", show_default=True)
@click.option("--sampler", "names", multiple=True, type=click.Choice(list(SAMPLERS)))
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
        files = sorted(folder.glob(f"{study}/*.json"))
        json_file.write_text(
            json.dumps({file.stem: json.loads(file.read_text()) for file in files})
        )


if __name__ == "__main__":
    main()
