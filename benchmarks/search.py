"""What racing saves and what it costs: the quickstart's search with and without it.

    python benchmarks/search.py [--seeds 5] [--trials 160] [--blocks 10] [--p-threshold 0.1]

Each seed is searched twice in a folder of its own, one after the other. Of each search: the
problems of the search split that were scored, the seconds it ran, and the test score of the trial
that `study test` would choose. The zoo is taken from the home folder.
"""

import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from optuna.trial import TrialState

from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.compare import compare
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import RacingSpec, StudySpec, load_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import SAME_AS
from evomerge_optuna.study.studies import MergeStudy

QUICKSTART = Path(__file__).parent.parent / "studies" / "quickstart.yaml"


@dataclass(frozen=True)
class Search:
    """What one search took and found; scores are shares of problems."""

    problems: int
    seconds: float
    stopped: int
    search: float
    test: float


def run(store: Store, spec: StudySpec, trials: int) -> tuple[MergeStudy, Search]:
    """Runs a study and tests its choice."""
    merge_study = create_study(store, spec)
    run_trials(merge_study, 1)  # loads models, data and the language model
    begin = time.perf_counter()
    run_trials(merge_study, trials)
    seconds = time.perf_counter() - begin
    target = spec.objective.target
    # Starts that are still queued have no result.
    done = merge_study.read().of(TrialState.COMPLETE)
    scored = [result_of(trial) for trial in done if SAME_AS not in trial.user_attrs]
    scorer = FinalScorer(merge_study)
    scorer.score_finalists()
    chosen = find_trial(merge_study, "best")
    test = scorer.final_scores(chosen)[-1].scores["test"][target].value
    return merge_study, Search(
        problems=sum(result.scores[target].n for result in scored),
        seconds=round(seconds, 1),
        stopped=len(merge_study.read().stopped),
        search=chosen.values[0],
        test=test,
    )


@click.command()
@click.option("--seeds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--trials", default=160, show_default=True, type=click.IntRange(2))
@click.option("--blocks", default=RacingSpec().blocks, show_default=True)
@click.option("--p-threshold", default=RacingSpec().p_threshold, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(seeds: int, trials: int, blocks: int, p_threshold: float, json_file: Path | None) -> None:
    """Print what both searches of each seed took and found."""
    spec = load_spec(QUICKSTART)
    racing = RacingSpec(blocks=blocks, p_threshold=p_threshold)
    for model in spec.model_ids().values():
        local_folder(model)
    found: list[tuple[Search, Search]] = []
    for seed in range(seeds):
        sampler = spec.sampler.model_copy(update={"seed": seed})
        whole = spec.model_copy(update={"sampler": sampler})
        raced = whole.model_copy(update={"study": "raced", "racing": racing})
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(f"sqlite:///{folder}/studies.db")
            studies, searches = zip(*(run(store, s, trials) for s in (whole, raced)), strict=True)
            (paired,) = compare(studies).paired
        found.append(searches)
        for name, search in zip(("whole", "raced"), searches, strict=True):
            click.echo(
                f"seed {seed} {name}: {search.problems} problems, {search.seconds} s, "
                f"{search.stopped} stopped, search {search.search:.1%}, test {search.test:.1%}"
            )
        click.echo(f"       on test only whole right {paired.only_first}, only raced "
                   f"{paired.only_second}, p = {paired.p:.2g}")  # fmt: skip
    print_means(found)
    if json_file:
        rows = [[asdict(search) for search in pair] for pair in found]
        json_file.write_text(
            json.dumps({"trials": trials, "racing": racing.model_dump(), "seeds": rows}, indent=1)
        )


def print_means(found: list[tuple[Search, Search]]) -> None:
    """Ratios over all seeds, and the mean difference of test scores with its standard error."""
    problems = sum(raced.problems for _, raced in found) / sum(w.problems for w, _ in found)
    seconds = sum(raced.seconds for _, raced in found) / sum(w.seconds for w, _ in found)
    click.echo(f"raced / whole: {problems:.2f} of the problems, {seconds:.2f} of the time")
    differences = [raced.test - whole.test for whole, raced in found]
    error = statistics.stdev(differences) / len(found) ** 0.5 if len(found) > 1 else float("nan")
    click.echo(f"test, raced - whole: {statistics.mean(differences):+.1%} (se {error:.1%})")


if __name__ == "__main__":
    main()
