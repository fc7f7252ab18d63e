"""What a GPU gives: merges, streaming, stacks, answers, memory that runs out, two workers.

    python benchmarks/gpu.py [--shape 1B] [--shape 7B] [--device auto] [--json PATH]

It makes its own random models, in bfloat16 and in the memory of the machine where there is a
/dev/shm, and needs nothing else; 7B takes 44 GB there. Every row that compares checks that what is
compared is equal, bit for bit, and fails if not. `--shape tiny --device cpu` runs all of it but for
memory that runs out.
"""

import functools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast
from unittest import mock

import click
import optuna
import torch
import transformers
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast

from evomerge_optuna import api, devices
from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.engines.base import Candidate, Greedy, TextEngine
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.memory import Budget, Room
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.shards import NamedTensor, write_tensors
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec

WORDS = ["<pad>", "</s>", "<unk>", *(f"word{number}" for number in range(997))]
COMMON = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "dtype": "bfloat16"}
SHAPES = {
    "tiny": LlamaConfig(
        **COMMON, vocab_size=1024, hidden_size=64, intermediate_size=128, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2,
    ),
    "1B": LlamaConfig(  # Llama 3.2's
        **COMMON, vocab_size=128_256, hidden_size=2048, intermediate_size=8192,
        num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        tie_word_embeddings=True,
    ),
    "7B": MistralConfig(**COMMON),  # Mistral's
}  # fmt: skip
METHODS = ("linear", "dare_ties", "ties")
NAMES = ("base", "a", "b")
EVERYTHING = 2**62
PLACES: dict[str, Callable[[], Room]] = {
    "device": lambda: Room(Budget(EVERYTHING), Budget(0)),
    "host": lambda: Room(Budget(0), Budget(EVERYTHING)),
    "disk": lambda: Room(Budget(0), Budget(0)),
}
Row = dict[str, str | float]


def save_models(folder: Path, shape: str, device: str) -> None:
    """A base, and two sources that differ from it by a tenth of its spread, with a tokenizer."""
    config = SHAPES[shape]
    config.architectures = [config.model_type.capitalize() + "ForCausalLM"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with torch.device("meta"):
        shapes = {
            n: p.shape for n, p in AutoModelForCausalLM.from_config(config).named_parameters()
        }

    def tensors(source: int) -> Iterator[NamedTensor]:
        for number, (name, size) in enumerate(shapes.items()):
            drawn = torch.Generator(device).manual_seed(number)
            tensor = torch.randn(size, generator=drawn, device=device).mul_(0.02)
            if source:
                drawn.manual_seed(1000 * source + number)
                tensor.add_(torch.randn(size, generator=drawn, device=device), alpha=0.002)
            yield name, (tensor + 1 if "norm" in name else tensor).to(torch.bfloat16)

    for source, name in enumerate(NAMES):
        place = folder / name
        config.save_pretrained(place)
        write_tensors(place, tensors(source))
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
        ).save_pretrained(place)


def a_recipe(folder: Path, method: str, number: int) -> MergeRecipe:
    """Another candidate for each number, all of one structure."""
    drawn = random.Random(number)
    searched = ("weight",) if method == "linear" else ("weight", "density")
    entries = [
        {"model": str(folder / name), "parameters": {p: drawn.uniform(0.2, 0.9) for p in searched}}
        for name in NAMES[1:]
    ]
    base = {} if method == "linear" else {"base_model": str(folder / "base")}
    configuration = {"merge_method": method, **base, "models": entries, "dtype": "bfloat16"}
    return MergeRecipe(configuration=configuration, seed=0)


def finished(device: str) -> None:
    """The device has done all that it was told."""
    if devices.is_accelerator(device):
        torch.accelerator.synchronize(device)


def median_seconds(run: Callable[[int], object], repeats: int, device: str) -> float:
    taken = []
    for number in range(repeats):
        finished(device)
        start = time.perf_counter()
        run(number)
        finished(device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


@functools.cache
def bandwidths(device: str) -> dict[str, float]:
    """Bytes a second: read or written on the device, and over the bus to it and from it."""
    count = 2**29 if devices.has_memory_of_its_own(device) else 2**24
    there = torch.ones(count, dtype=torch.bfloat16, device=device)
    other = torch.empty_like(there)
    here = devices.pinned(torch.ones(count, dtype=torch.bfloat16), device)
    copies = {
        "device": lambda _: other.copy_(there),
        "to it": lambda _: there.copy_(here, non_blocking=True),
        "from it": lambda _: here.copy_(there, non_blocking=True),
    }
    moved = {name: there.nbytes * (2 if name == "device" else 1) for name in copies}
    return {name: moved[name] / median_seconds(copy, 9, device) for name, copy in copies.items()}


def merges(folder: Path, method: str, device: str, repeats: int) -> Iterator[Row]:
    """A method with the models at every place, beside what memory and bus alone take."""
    speed = bandwidths(device)
    size = sum(file.stat().st_size for file in (folder / "base").glob("*.safetensors"))
    count = len(NAMES) - (method == "linear")
    digests = {}
    for place, room in PLACES.items():
        with mock.patch.object(Room, "of", lambda *_, room=room: room()):
            made = ModelInPlace(ResidentMerger(device))
            digests[place] = [made.merge(a_recipe(folder, method, n)).digest for n in (0, 1)]

            def merge(number: int, made: ModelInPlace = made) -> object:
                return made.merge(a_recipe(folder, method, 2 + number))

            seconds = median_seconds(merge, repeats, device)
            last = made.merge(a_recipe(folder, method, 0))
            start = time.perf_counter()
            assert last.digest == digests[place][0]
            digest = time.perf_counter() - start
        floor = (count + 1) * size / speed["device"]
        if place != "device":
            floor = max(floor, count * size / speed["to it"])
        what = f"merge {method}, models on {place}"
        yield {"what": what, "seconds": seconds, "floor": floor, "digest": digest}
        del made, last, merge
        devices.give_back_unused()
    assert digests["device"] == digests["host"] == digests["disk"], method
    start = time.perf_counter()
    stream = MergekitMerger(device).stream(a_recipe(folder, method, 1))
    for _ in stream:
        pass
    assert stream.digest() == digests["device"][1], f"{method} is not mergekit's"
    yield {"what": f"mergekit {method}, with hash", "seconds": time.perf_counter() - start}


def stacks(folder: Path, shape: str, device: str, repeats: int) -> Iterator[Row]:
    """A stack of the two sources of 1.25 times their depth, on the device and copied to it."""
    a, b = (str(folder / name) for name in NAMES[1:])
    depth = SHAPES[shape].num_hidden_layers

    def recipe(number: int) -> StackRecipe:
        drawn = random.Random(number)
        steps = tuple(
            Step(model=drawn.choice((a, b)), layer=drawn.randrange(depth), scale=0.9)
            for _ in range(depth * 5 // 4)
        )
        return StackRecipe(embeddings=a, steps=steps, head=b)

    ids = torch.arange(3, 35, device=device)[None]
    found = {}
    for place, room in PLACES.items():
        with mock.patch.object(Room, "of", lambda *_, room=room: room()), torch.inference_mode():
            builder = candidate_builder(EvaluationSpec(device=device))
            built = builder.build(recipe(0))
            logits = text_engine(built).raw("a benchmark").model(ids).logits.cpu()
            found[place] = built.digest, logits
            seconds = median_seconds(
                lambda n, builder=builder: builder.build(recipe(n)), repeats, device
            )
        yield {"what": f"stack, models on {place}", "seconds": seconds}
        del builder, built
        devices.give_back_unused()
    digest, logits = found["device"]
    assert all(d == digest and torch.equal(ours, logits) for d, ours in found.values())


def text_engine(candidate: Candidate) -> TextEngine:
    return cast(TextEngine, candidate.engine)


def answers(folder: Path, shape: str, device: str) -> Iterator[Row]:
    """Tokens a second beside plain batches of `generate`; then the same in memory that runs out."""
    drawn = random.Random(0)
    count, new, batch = (8, 8, 4) if shape == "tiny" else (256, 128, 64)
    prompts = [" ".join(drawn.choices(WORDS[3:], k=drawn.randint(8, 96))) for _ in range(count)]
    builder = candidate_builder(EvaluationSpec(device=device, batch_size=batch))
    engine = text_engine(builder.build(a_recipe(folder, "linear", 0)))
    raw = engine.raw("a benchmark")

    def plain() -> None:
        for start in range(0, count, batch):
            encoded = raw.tokenizer(
                prompts[start : start + batch], return_tensors="pt", padding=True,
                padding_side="left",
            ).to(device)  # fmt: skip
            encoded.pop("token_type_ids", None)
            raw.model.generate(**encoded, max_new_tokens=new, do_sample=False)

    ours = engine.generate(prompts, Greedy(new))
    ways = {"plain generate": plain, "ours": lambda: engine.generate(prompts, Greedy(new))}
    for what, run in ways.items():
        seconds = median_seconds(lambda _, run=run: run(), 2, device)
        yield {"what": f"{count} answers of {new} tokens, {what}", "seconds": seconds,
               "tokens/s": count * new / seconds}  # fmt: skip
    if not devices.has_memory_of_its_own(device) or shape == "tiny":
        return
    _, total = devices.memory_of(device)
    module = torch.get_device_module(device)
    devices.give_back_unused()
    used = torch.accelerator.memory_allocated(device)
    module.set_per_process_memory_fraction(min(1.0, (used + 3 * 2**30) / total), device)
    try:
        small = type(engine)(raw.model, engine.reader, 4096)
        start = time.perf_counter()
        texts = small.generate(prompts * 8, Greedy(new))
        seconds = time.perf_counter() - start
    finally:
        module.set_per_process_memory_fraction(1.0, device)
    same = sum(one == other for one, other in zip(texts, ours * 8, strict=True))
    yield {"what": f"3 GB for a batch of 4096: {same} of {len(texts)} texts the same",
           "seconds": seconds}  # fmt: skip


def two_workers(folder: Path, device: str) -> Iterator[Row]:
    """A study by two processes on one card."""
    drawn = random.Random(1)
    rows = [{"text": " ".join(drawn.choices(WORDS[3:], k=40))} for _ in range(32)]
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {
        "study": "two workers",
        "stage": "ps",
        "base_model": str(folder / "base"),
        "models": {name: str(folder / name) for name in NAMES[1:]},
        "merge": {"method": "ties", "dtype": "bfloat16"},
        "sampler": {"seed": 0},
        "trials": 6,
        "tasks": {"read": {"type": "perplexity", "text": "{text}",
                           "data": {"search": {"path": str(data)}}}},
        "objectives": [{"minimize": "read.perplexity"}],
        "evaluation": {"device": device},
    }  # fmt: skip
    start = time.perf_counter()
    study = api.run_study(spec, f"sqlite:///{folder}/study.db", workers=2)
    seconds = time.perf_counter() - start
    done = study.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert len(done) == 6
    yield {"what": "6 trials by two workers", "seconds": seconds}


@click.command()
@click.option("--shape", "shapes", multiple=True, type=click.Choice(list(SHAPES)),
              default=["1B", "7B"])  # fmt: skip
@click.option("--device", default="auto", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(shapes: tuple[str, ...], device: str, repeats: int, json_file: Path | None) -> None:
    """Print seconds, and what memory and bus alone would take."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = devices.torch_device(device)
    names = {one.name: one.product for one in devices.accelerators()}
    results: list[dict[str, object]] = []
    console = Console(width=120)
    memory = Path("/dev/shm")
    for shape in shapes:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
            folder = Path(place)
            save_models(folder, shape, device)
            rows: list[Row] = [
                {"what": f"GB a second, {name}", "GB/s": value / 1e9}
                for name, value in bandwidths(device).items()
            ]
            for method in METHODS:
                rows += merges(folder, method, device, repeats)
            rows += stacks(folder, shape, device, repeats)
            rows += answers(folder, shape, device)
            if shape != "7B":  # two of which need more than a card
                rows += two_workers(folder, device)
        table = Table(title=f"{shape} in bfloat16 on {names.get(device, device)}")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        for column in columns:
            table.add_column(column)
        for row in rows:
            cells = [row.get(column, "") for column in columns]
            table.add_row(*(f"{x:,.3f}" if isinstance(x, float) else x for x in cells))
        console.print(table)
        results.append({"shape": shape, "device": names.get(device, device), "rows": rows})
    if json_file:
        json_file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
