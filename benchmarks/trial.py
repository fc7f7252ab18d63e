"""Where the time of a trial goes: merging, loading, scoring, and all the rest.

    python benchmarks/trial.py [--trials 20] [--json PATH]

Runs the quickstart's search for a few trials in a folder of its own and prints each part's median
and its share of the trial, all from one run. The zoo is taken from the home folder.
"""

import json
import statistics
import tempfile
from pathlib import Path

import click
from optuna.trial import TrialState

from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import load_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of

QUICKSTART = Path(__file__).parent.parent / "studies" / "quickstart.yaml"
PARTS = ("merge", "score")


@click.command()
@click.option("--trials", default=20, show_default=True, type=click.IntRange(2))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(trials: int, json_file: Path | None) -> None:
    """Print the parts of a trial."""
    spec = load_spec(QUICKSTART)
    for model in spec.model_ids().values():
        local_folder(model)
    with tempfile.TemporaryDirectory() as folder:
        merge_study = create_study(open_store(f"sqlite:///{folder}/studies.db"), spec)
        run_trials(merge_study, trials + 1)
        # The first trial loads the data and the language model.
        # Starts that are still queued have no result.
        scored = merge_study.read().of(TrialState.COMPLETE)
        found = [trial for trial in scored if trial.number > 0]
    wholes = [trial.duration.total_seconds() for trial in found if trial.duration]
    medians = {
        part: statistics.median(result_of(trial).seconds[part] for trial in found) for part in PARTS
    }
    whole = statistics.median(wholes)
    medians["sampling and storing"] = statistics.median(
        duration - sum(result_of(trial).seconds.values())
        for duration, trial in zip(wholes, found, strict=True)
    )
    for part, seconds in medians.items():
        click.echo(f"{part:<22}{1000 * seconds:8.0f} ms{100 * seconds / whole:6.0f}%")
    click.echo(f"{'trial':<22}{1000 * whole:8.0f} ms")
    if json_file:
        json_file.write_text(json.dumps({"trials": trials, "medians": medians, "trial": whole}))


if __name__ == "__main__":
    main()
