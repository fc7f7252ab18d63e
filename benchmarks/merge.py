"""How fast a candidate is merged: mergekit on disk, mergekit in memory, ours, and memory itself.

    python benchmarks/merge.py [--size zoo] [--size 135M] [--repeats 3] [--merges 500] [--json PATH]
    python benchmarks/merge.py --memory-limit 200 [--size 135M] [--repeats 3] [--json PATH]

All from one run over the same models: two sources and their base, float32. 135M is a random Llama
of SmolLM2-135M's shape. The floor is the time to read base and sources once and to write the merged
model once, at the copy bandwidth measured beside it.

With a memory limit, in MB, it is asked instead what merges cost whose models are not kept but read
from their files tensor by tensor. There are three sources then: at 135M, 2,152 MB of models.
"""

import json
import logging
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import psutil
import torch
import transformers
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.merge import run_merge
from rich.console import Console
from rich.table import Table

from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.plan import merge_options, plan_merge
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.merge import MergeRecipe

EVERYTHING = 2**62  # bytes
METHODS = ("ties", "dare_ties", "task_arithmetic")
SHAPE_135M = transformers.LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    tie_word_embeddings=True,
    dtype="float32",
)


def zoo_models(_: Path, sources: int) -> list[str]:
    return [
        str(local_folder(f"zoo:{name}")) for name in ("base", "ja", "add", "mul")[: sources + 1]
    ]


def random_models(
    folder: Path, sources: int, shape: transformers.LlamaConfig = SHAPE_135M
) -> list[str]:
    """A base and sources that differ from it by a tenth of its spread, with a tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(local_folder("zoo:base"))
    torch.manual_seed(0)
    base = transformers.LlamaForCausalLM(shape)
    names = []
    for name in ("base", "a", "b", "c")[: sources + 1]:
        model = base
        if name != "base":
            model = transformers.LlamaForCausalLM(shape)
            with torch.no_grad():
                for moved, start in zip(model.parameters(), base.parameters(), strict=True):
                    moved.mul_(0.1).add_(start)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        names.append(str(folder / name))
    return names


SIZES: dict[str, Callable[[Path, int], list[str]]] = {"zoo": zoo_models, "135M": random_models}


def a_recipe(method: str, models: list[str], number: int) -> MergeRecipe:
    """Another candidate for each number, all of one structure."""
    drawn = random.Random(number)
    base, *sources = models
    parameters = ("weight",) if method == "task_arithmetic" else ("weight", "density")
    entries = [
        {"model": source, "parameters": {name: drawn.uniform(0.2, 0.9) for name in parameters}}
        for source in sources
    ]
    configuration = {
        "merge_method": method,
        "base_model": base,
        "models": entries,
        "dtype": "float32",
    }
    return MergeRecipe(configuration=configuration, seed=0)


def median_seconds(run: Callable[[int], object], repeats: int) -> float:
    taken = []
    for number in range(1, repeats + 1):
        start = time.perf_counter()
        run(number)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def copy_bandwidth() -> float:
    """Bytes that move a second, read or written, in a copy far larger than the caches."""
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * source.nbytes / median_seconds(lambda _: target.copy_(source), 9)


def measure(method: str, models: list[str], repeats: int) -> dict[str, float]:
    """Seconds of each way, and the floor."""

    def on_disk(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            recipe = a_recipe(method, models, number)
            configuration = MergeConfiguration.model_validate(recipe.configuration)
            options = merge_options(recipe).model_copy(update={"copy_tokenizer": True})
            run_merge(configuration, folder, options)
            load_model(Path(folder), "cpu")

    plan = plan_merge(a_recipe(method, models, 0))
    order, gathers = plan.order(), {n: p.task.gather_tensors for n, p in plan.tensors.items()}
    read = dict(Executor(list(set(gathers.values()))).run(quiet=True))
    inputs = {name: read[gather] for name, gather in gathers.items()}

    def in_memory(number: int) -> None:
        planned = plan_merge(a_recipe(method, models, number))
        transformers.set_seed(0)
        merged = {name: planned.tensors[name].task.execute(tensors=inputs[name]) for name in order}
        assert len(merged) == len(order)

    merger = ModelInPlace(ResidentMerger("cpu"))
    merger.merge(a_recipe(method, models, 0))
    merger.merge(a_recipe(method, models, -1))
    tensors = dict(merger.merge(a_recipe(method, models, -2)).model.named_parameters())
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    with torch.no_grad():
        seconds = {
            "run_merge + load": median_seconds(on_disk, repeats),
            "mergekit in memory": median_seconds(in_memory, repeats),
            "ours with hash": median_seconds(
                lambda number: merger.merge(a_recipe(method, models, number)), 5 * repeats
            ),
            "hash": median_seconds(lambda _: digest_tensors(tensors), 5 * repeats),
        }
    seconds["ours"] = seconds["ours with hash"] - seconds["hash"]
    size = sum(tensor.nbytes for tensor in tensors.values())
    seconds["floor"] = (len(models) + 1) * size / copy_bandwidth()
    return seconds


def memory(method: str, models: list[str], merges: int) -> dict[str, float]:
    """Peak and growth of a process of its own beyond what its imports take, in MB."""
    process = psutil.Process()
    before = process.memory_info().rss
    merger = ModelInPlace(ResidentMerger("cpu"))
    model = merger.merge(a_recipe(method, models, 0)).model
    size = sum(tensor.nbytes for tensor in model.parameters())
    for number in range(merges // 5):
        merger.merge(a_recipe(method, models, number))
    settled = process.memory_info().rss
    for number in range(merges - merges // 5):
        merger.merge(a_recipe(method, models, number))
    ended = process.memory_info().rss
    # Not getrusage, whose maximum a child inherits from its parent.
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    peak = 1024 * int(line.split()[1])
    sources = len(models) - 1
    kept = 0 if method == "task_arithmetic" else sources * size
    found = {
        "need": (len(models) + 1) * size + kept,
        "peak": peak - before,
        "growth": ended - settled,
    }
    return {name: value / 1e6 for name, value in found.items()}


def anonymous() -> int:
    """Bytes of this process's memory that are not pages of files."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in x)
    return 1024 * int(line.split()[1])


def beside_streamed(method: str, models: list[str], limit: int, repeats: int) -> dict[str, float]:
    """Seconds of a merge with its hash, and MB that the process grew by.

    The two ways take turns, and every digest of the one is that of the other.

    Args:
        limit: bytes that the streamed merges may keep.
    """
    said: list[str] = []
    makers = {
        "streamed": ModelInPlace(ResidentMerger("cpu", limit, said.append)),
        "kept": ModelInPlace(ResidentMerger("cpu", EVERYTHING)),
    }
    taken: dict[str, list[float]] = {name: [] for name in makers}
    grown: dict[str, int] = {}
    for number in range(repeats + 1):
        digests = set()
        for name, maker in makers.items():
            before, start = anonymous(), time.perf_counter()
            digests.add(maker.merge(a_recipe(method, models, number)).digest)
            if number == 0:  # which reads the models, and makes the model that is run
                grown[name] = anonymous() - before
            else:
                taken[name].append(time.perf_counter() - start)
        assert len(digests) == 1, f"{method}: a streamed merge is another one"
    assert "streamed to each merge" in said[0], said
    return {name: statistics.median(seconds) for name, seconds in taken.items()} | {
        f"MB {name}": size / 1e6 for name, size in grown.items()
    }


def streamed_table(sizes: tuple[str, ...], limit: int, repeats: int) -> tuple[Table, list[object]]:
    """What `beside_streamed` finds of every size and method."""
    table = Table(title=f"Merges with {limit / 1e6:.0f} MB for models, beside merges that keep all")
    for column in ("size", "models, MB", "method", "kept, s", "streamed, s", "times as long"):
        table.add_column(column)
    for column in ("kept, MB of memory", "streamed, MB of memory"):
        table.add_column(column)
    results: list[object] = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            models = SIZES[size](Path(folder), 3)
            files = [file for model in models for file in Path(model).glob("*.safetensors")]
            held = sum(file.stat().st_size for file in files) / 1e6
            for method in METHODS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found = pool.apply(beside_streamed, (method, models, limit, repeats))
                kept, streamed = found["kept"], found["streamed"]
                row = (f"{kept:.3f}", f"{streamed:.3f}", f"{streamed / kept:.1f}")
                memory = (f"{found['MB kept']:.0f}", f"{found['MB streamed']:.0f}")
                table.add_row(size, f"{held:.0f}", method, *row, *memory)
                results.append({"size": size, "method": method, "models": held, **found})
    return table, results


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), default=list(SIZES))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--merges", default=500, show_default=True, help="For growth, on the zoo.")
@click.option("--memory-limit", type=click.IntRange(1), help="MB; see above.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    sizes: tuple[str, ...],
    repeats: int,
    merges: int,
    memory_limit: int | None,
    json_file: Path | None,
) -> None:
    """Print medians, ratios and memory."""
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    if memory_limit is not None:
        table, found_streamed = streamed_table(sizes, memory_limit * 10**6, repeats)
        Console(width=140).print(table)
        if json_file:
            json_file.write_text(json.dumps(found_streamed, indent=1))
        return
    speed = Table(title=f"Seconds of a merge, medians; {torch.get_num_threads()} threads")
    for column in ("size", "method", "run_merge + load", "mergekit in memory", "ours", "hash"):
        speed.add_column(column)
    for column in ("times faster", "with hash", "floor", "ours / floor"):
        speed.add_column(column)
    space = Table(title="Memory, MB")
    for column in ("size", "method", "models, merged, ranks", "peak", "growth", "merges"):
        space.add_column(column)
    results = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            models = SIZES[size](Path(folder), 2)
            for method in METHODS:
                found = measure(method, models, repeats)
                disk, ours = found["run_merge + load"], found["ours"]
                speed.add_row(
                    size,
                    method,
                    *(f"{found[name]:.3f}" for name in ("run_merge + load", "mergekit in memory")),
                    *(f"{found[name]:.3f}" for name in ("ours", "hash")),
                    f"{disk / ours:.0f}",
                    f"{disk / found['ours with hash']:.0f}",
                    f"{found['floor']:.3f}",
                    f"{ours / found['floor']:.1f}",
                )
                count = merges if size == "zoo" else 50
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    used = pool.apply(memory, (method, models, count))
                space.add_row(size, method, *(f"{v:.0f}" for v in used.values()), str(count))
                results.append({"size": size, "method": method, "seconds": found, "MB": used})
    console = Console(width=140)
    console.print(speed)
    console.print(space)
    if json_file:
        json_file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
