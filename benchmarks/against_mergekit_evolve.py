"""Our search beside that of mergekit-evolve: the same models, problems, rule and budget.

    python benchmarks/against_mergekit_evolve.py [--candidates 162] [--json PATH]

Everything is run one after the other, each search in a process of its own: `study run`, where vLLM
is installed (as in .venv-vllm) with both engines, and mergekit-evolve with merges on disk and in
memory. mergekit-evolve has its own environment, which is made the first time; see
mergekit_evolve/evolve.py for how it is driven without CUDA. Its problems are an lm-eval task with
our rule (mergekit_evolve/tasks).
"""

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import torch
import yaml
from optuna.trial import TrialState

from evomerge_optuna.engines import candidate_builder, live
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.families import check_models
from evomerge_optuna.home import home
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import StudySpec, load_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.studies import MergeStudy, open_study
from evomerge_optuna.zoo.problems import load_problems

ROOT = Path(__file__).parent.parent
QUICKSTART = ROOT / "studies" / "quickstart.yaml"
THEIRS = Path(__file__).parent / "mergekit_evolve"
UNIFORM_WEIGHTS = (1 / 3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
UNIFORM_DENSITIES = (0.25, 0.5, 0.75, 1.0)
BATCH = "256"  # as in the quickstart: all problems at once
POINTS = 0.2  # above the best uniform merge
KILLED_AFTER = 12  # candidates


@dataclass(frozen=True)
class Search:
    """What a search took and found: seconds since its process began, scores as shares.

    The time of the processor depends less than the clock on what else the machine does.
    """

    name: str
    seconds: tuple[float, ...]  # at which each candidate was scored
    scores: tuple[float, ...]  # on search
    whole: float  # seconds of the process
    processor: float  # seconds of the processor, begin and end of the process included
    test: float

    @property
    def per_candidate(self) -> float:
        """The median of the seconds from one candidate to the next."""
        return statistics.median(b - a for a, b in pairwise(self.seconds))

    def until(self, wanted: float) -> float | None:
        """Seconds until a candidate had this score on search."""
        reached = zip(self.seconds, self.scores, strict=True)
        return next((seconds for seconds, score in reached if score >= wanted), None)


@dataclass(frozen=True)
class Theirs:
    """mergekit-evolve in its own environment, in a folder with problems and genome."""

    python: Path
    folder: Path

    @classmethod
    def set_up(cls, environment: Path, folder: Path, spec: StudySpec) -> "Theirs":
        """Makes the environment unless it is there, and writes what a search reads."""
        python = environment / "bin" / "python"
        if not (environment / "ready").is_file():
            subprocess.run([sys.executable, "-m", "venv", environment], check=True)
            requirements = ["-r", THEIRS / "requirements.txt", "-c", ROOT / "constraints.txt"]
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements], check=True)
            (environment / "ready").touch()
        for split in ("search", "test"):
            load_problems()[split].to_json(folder / f"{split}.jsonl", force_ascii=False)
        (folder / "genome.yaml").write_text(yaml.safe_dump(genome(spec)))
        return cls(python, folder)

    def start(self, storage: Path, candidates: int, *options: str) -> "subprocess.Popen[bytes]":
        """Begins a search."""
        # CMA-ES ends with the generation in which it has more than so many.
        given = ["genome.yaml", str(storage), "--max-fevals", str(candidates - 1), *options]
        storage.mkdir(exist_ok=True)
        return subprocess.Popen(
            self._command("search", *given), cwd=self.folder, env=self._environment()
        )

    def search(self, name: str, candidates: int, *options: str) -> Search:
        storage = self.folder / name.replace(" ", "-")
        begin = time.time()
        whole, processor = finish(self.start(storage, candidates, *options), name)
        found = candidates_of(storage)
        return Search(
            name=name,
            seconds=tuple(row["time"] - begin for row in found),
            scores=tuple(row["score"] for row in found),
            whole=whole,
            processor=processor,
            test=self.score(storage / "final_model", "zoo_test"),
        )

    def score(self, model: Path, task: str, dtype: str = "bfloat16") -> float:
        """The score of a checkpoint, as mergekit-evolve has it."""
        done = subprocess.run(
            self._command("score", str(model), task, "--dtype", dtype, "--batch-size", BATCH),
            cwd=self.folder,
            env=self._environment(),
            check=True,
            stdout=subprocess.PIPE,
        )
        return float(json.loads(done.stdout.splitlines()[-1]))

    def _command(self, *arguments: str) -> list[str]:
        return [str(self.python), str(THEIRS / "evolve.py"), *arguments]

    def _environment(self) -> dict[str, str]:
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        return os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"} | quiet


def candidates_of(storage: Path) -> list[dict[str, float]]:
    file = storage / "candidates.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def genome(spec: StudySpec) -> dict[str, Any]:
    """The quickstart's search as mergekit-evolve's configuration."""
    return {
        "genome": {
            "models": [str(local_folder(model)) for model in spec.models.values()],
            "base_model": str(local_folder("zoo:base")),
            "merge_method": "ties",
            "normalize": False,
            "layer_granularity": 0,  # one group of all layers
        },
        "tasks": [{"name": "zoo_search", "metric": "acc,none"}],
        "apply_chat_template": False,
    }


@dataclass(frozen=True)
class Ours:
    """`study run` in a folder of its own."""

    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/studies.db"

    def start(self, spec: StudySpec) -> "subprocess.Popen[bytes]":
        """Begins a search, or goes on with it."""
        file = self.folder / f"{spec.study}.yaml"
        file.write_text(spec.to_yaml())
        command = [sys.executable, "-m", "evomerge_optuna", "study", "run", str(file)]
        return subprocess.Popen([*command, "--storage", self.url], stdout=subprocess.DEVNULL)

    def search(self, name: str, spec: StudySpec) -> Search:
        begin = time.time()
        whole, processor = finish(self.start(spec), name)
        merge_study = self.open(spec)
        scored = [t for t in merge_study.trials() if t.datetime_complete and t.values]
        scorer = FinalScorer(merge_study)
        scorer.score_finalists()
        chosen = find_trial(merge_study, "best")
        test = scorer.final_scores(chosen)[-1].scores["test"][spec.objective.target]
        live.close()  # of vLLM, which has scored the finalists in this process
        return Search(
            name=name,
            seconds=tuple(t.datetime_complete.timestamp() - begin for t in scored),
            scores=tuple(t.values[0] for t in scored),
            whole=whole,
            processor=processor,
            test=test.value,
        )

    def open(self, spec: StudySpec) -> MergeStudy:
        return open_study(open_store(self.url), spec.study)

    def finished(self, spec: StudySpec) -> int:
        try:
            return self.open(spec).finished()
        except Exception:  # not created yet
            return 0


def our_specs(quickstart: StudySpec) -> dict[str, StudySpec]:
    """The quickstart in each engine that is installed, merged and run in both dtypes."""
    engines = ["vllm"] if importlib.util.find_spec("vllm") else []
    found = {}
    for engine in [*engines, "transformers"]:
        evaluation = quickstart.evaluation.model_copy(update={"engine": engine, "device": "cpu"})
        for dtype in ("bfloat16", "float32"):
            merge = quickstart.merge.model_copy(update={"dtype": dtype})
            given = {"study": f"{engine}-{dtype}", "merge": merge, "evaluation": evaluation}
            found[f"ours, {engine}, {dtype}"] = quickstart.model_copy(update=given)
    return found


def finish(process: "subprocess.Popen[bytes]", name: str) -> tuple[float, float]:
    """Waits for a process; seconds that it ran, by the clock and on the processor."""
    begin, before = time.time(), os.times()
    if process.wait():
        raise click.ClickException(f"{name}: failed")
    after = os.times()
    user = after.children_user - before.children_user
    return time.time() - begin, user + after.children_system - before.children_system


def best_uniform(spec: StudySpec) -> float:
    """The best score on search of merges that give all models the same weight and density."""
    space = make_space(spec, check_models(spec, OpenedModels(spec.model_ids())).layers)
    builder, evaluator = candidate_builder(spec.evaluation), Evaluator(spec)
    scores = []
    for weight in UNIFORM_WEIGHTS:
        for density in UNIFORM_DENSITIES:
            wanted = {"weight": weight, "density": density}
            values = {name: wanted[name.split(".")[1]] for name in space.ranges()}
            engine = builder.build(space.recipe(values)).engine
            found = evaluator.evaluate(engine, "search")
            scores.append(found.scores[spec.objective.target].value)
    return max(scores)


def check_rule(theirs: Theirs, ours: StudySpec, models: dict[str, Path]) -> list[dict[str, Any]]:
    """The test scores of the same checkpoints on both sides, in the numbers they are stored in."""
    rows = []
    for name, folder in models.items():
        dtype = json.loads((folder / "config.json").read_text())["dtype"]
        found = score_checkpoint(str(folder), ours, "test").scores[ours.objective.target]
        rows.append(
            {
                "model": name,
                "dtype": dtype,
                "lm-eval": theirs.score(folder, "zoo_test", dtype),
                "ours": found.value,
            }
        )
    return rows


def kill_ours(ours: Ours, uninterrupted: StudySpec) -> str:
    """Kills a search after some candidates, goes on with it, and compares it with another."""
    spec = uninterrupted.model_copy(update={"study": "killed", "trials": 2 * KILLED_AFTER})
    process = ours.start(spec)
    kill_when(process, lambda: ours.finished(spec))
    survived = ours.finished(spec)
    ours.start(spec).wait()
    pairs = [
        [(t.params, t.values) for t in ours.open(s).trials() if t.state is TrialState.COMPLETE]
        for s in (spec, uninterrupted)
    ]
    same = "the same" if pairs[0] == pairs[1][: len(pairs[0])] else "NOT the same"
    return (
        f"{survived} scored candidates are stored; gone on with, its first {len(pairs[0])} "
        f"candidates and their scores are {same} as those of the search that was not killed"
    )


def kill_theirs(theirs: Theirs, storage: Path, candidates: int) -> str:
    """Kills a search after some candidates and begins it again."""
    batches = ("--batch-size", BATCH)
    kill_when(theirs.start(storage, candidates, *batches), lambda: len(candidates_of(storage)))
    survived = len(candidates_of(storage))
    left = sorted(path.name for path in storage.iterdir() if path.name != "candidates.jsonl")
    process = theirs.start(storage, candidates, *batches)
    begin = candidates_of(storage)[:survived]
    while len(again := candidates_of(storage)[survived:]) < 3 and process.poll() is None:
        time.sleep(0.5)
    process.kill()
    process.wait()
    repeats = [row["score"] for row in again[:3]] == [row["score"] for row in begin[:3]]
    return (
        f"none of {survived} scored candidates; left are {', '.join(left)}; begun again it "
        f"{'repeats them from the first' if repeats else 'does something else'}"
    )


def kill_when(process: "subprocess.Popen[bytes]", scored: Any) -> None:
    """kill -9 once so many candidates are scored."""
    while scored() < KILLED_AFTER:
        if process.poll() is not None:
            raise click.ClickException("a search ended before it could be killed")
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()


@click.command()
@click.option("--candidates", default=162, show_default=True, help="18 generations of 9.")
@click.option(
    "--slow-candidates",
    default=18,
    show_default=True,
    type=click.IntRange(9),
    help="Of mergekit-evolve's slow ways: as by default, and in memory.",
)
@click.option("--threads", default=1, show_default=True, help="Of each search.")
@click.option(
    "--environment",
    type=click.Path(path_type=Path),
    default=lambda: home() / "mergekit-evolve",
    show_default="mergekit-evolve in the home folder",
    help="Where mergekit-evolve is installed; made unless it is there.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    candidates: int,
    slow_candidates: int,
    threads: int,
    environment: Path,
    json_file: Path | None,
) -> None:
    """Print what the searches took and found."""
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that are begun
    torch.set_num_threads(threads)
    quickstart = load_spec(QUICKSTART).model_copy(update={"trials": candidates})
    specs = our_specs(quickstart)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        theirs, ours = Theirs.set_up(environment, folder, quickstart), Ours(folder)
        uniform = best_uniform(quickstart)
        click.echo(f"best uniform merge on search: {uniform:.1%}")
        ways = (
            *(partial(ours.search, name, spec) for name, spec in specs.items()),
            partial(theirs.search, "on disk, in batches", candidates, "--batch-size", BATCH),
            partial(theirs.search, "on disk, as by default", slow_candidates),
            partial(theirs.search, "in memory", slow_candidates, "--in-memory"),
        )
        searches: list[Search] = []
        click.echo(
            "| search | candidates | seconds a candidate | times ours | processor, s a candidate "
            f"| seconds to {uniform + POINTS:.1%} on search | best on search | test |"
        )
        for way in ways:
            searches.append(way())
            print_search(searches[-1], searches[0], uniform + POINTS)
        finals = {
            search.name: folder / search.name.replace(" ", "-") / "final_model"
            for search in searches[len(specs) :]
        }
        zoo = {model: local_folder(model) for model in quickstart.models.values()}
        checks = check_rule(theirs, quickstart, zoo | finals)
        for check in checks:
            click.echo(
                f"{check['model']:<28}{check['dtype']:<10}"
                f"test {check['lm-eval']:.1%} by lm-eval, {check['ours']:.1%} by us"
            )
        survival = {
            "ours": kill_ours(ours, specs["ours, transformers, float32"]),
            "mergekit-evolve": kill_theirs(theirs, folder / "killed", candidates),
        }
        for who, what in survival.items():
            click.echo(f"after kill -9, {who}: {what}")
    if json_file:
        found = {"uniform": uniform, "searches": [asdict(search) for search in searches]}
        json_file.write_text(json.dumps(found | {"checks": checks, "survival": survival}))


def print_search(search: Search, first: Search, wanted: float) -> None:
    """One row of a Markdown table."""
    reached = search.until(wanted)
    cells = (
        search.name,
        len(search.scores),
        f"{search.per_candidate:.3g}",
        f"{search.per_candidate / first.per_candidate:.1f}",
        f"{search.processor / len(search.scores):.3g}",
        "never" if reached is None else f"{reached:.0f}",
        f"{max(search.scores):.1%}",
        f"{search.test:.1%}",
    )
    click.echo(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
