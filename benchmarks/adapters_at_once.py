"""How many candidates a minute, where they are adapters: one at a time, and a generation at once.

    python benchmarks/adapters_at_once.py [--problems 32] [--candidates 8] [--json PATH]

The base model is a random one of the shape of SmolLM2-135M, whose answers all have as many tokens;
its adapters are random, too. Each candidate is a sum of them (`linear`), built and then asked. vLLM
is measured where it is installed, as in .venv-vllm: with our products for each adapter of a batch,
and with its own way on the CPU.
"""

import importlib.util
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import torch
from generation import SHAPES, save_random
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from evomerge_optuna.engines import candidate_builder, live
from evomerge_optuna.engines.base import Greedy, JoiningBuilder
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from evomerge_optuna.spec import EvaluationSpec

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CACHE = {"kv_cache_memory_bytes": 2**30}


@dataclass(frozen=True)
class Row:
    """One way, and how long a candidate took, in seconds: to build, and to ask.

    Attributes:
        alike: of how many candidates all texts are those of the first way.
    """

    way: str
    at_once: int
    build: float
    ask: float
    alike: int

    @property
    def a_minute(self) -> float:
        return 60 / (self.build + self.ask)


def save_adapters(base: Path, folder: Path, count: int, rank: int) -> list[str]:
    """Random adapters of all linear modules, as BASE+ADAPTER."""
    names = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = LlamaForCausalLM.from_pretrained(base)
        settings = LoraConfig(r=rank, target_modules=TARGETS, init_lora_weights=False)
        get_peft_model(model, settings).save_pretrained(folder / str(seed))
        names.append(f"{base}+{folder / str(seed)}")
    return names


def recipes(base: Path, adapters: Sequence[str], count: int, layers: int) -> list[AdapterRecipe]:
    draw = random.Random(0)
    return [
        AdapterRecipe(
            base_model=str(base),
            adapters=tuple(adapters),
            method="linear",
            groups=(ModuleGroup(values={a: {"weight": draw.uniform(0, 1)} for a in adapters}),),
            layers=layers,
            reads_as=str(base),
            seed=0,
        )
        for _ in range(count)
    ]


@contextmanager
def vllms_own_way() -> Iterator[None]:
    """Within the block vLLM is started with what it has for the CPU by itself."""
    from evomerge_optuna.engines import grouped

    live.close()  # else the engine that is there is kept
    before, grouped.group_adapters_on_cpu = grouped.group_adapters_on_cpu, lambda: None
    restored = grouped.current_platform.__dict__.pop("get_punica_wrapper", None)
    try:
        yield
    finally:
        live.close()
        grouped.group_adapters_on_cpu = before
        if restored is not None:
            grouped.current_platform.get_punica_wrapper = restored


def run(
    spec: EvaluationSpec, candidates: Sequence[AdapterRecipe], prompts: Sequence[str], how: Greedy
) -> tuple[float, float, list[list[str | None]]]:
    """Seconds a candidate to build and to ask, medians, and their texts."""
    builder, count = candidate_builder(spec), spec.candidates or 1
    builder.load(candidates[0])
    warm = builder.build(candidates[0]).engine
    warm.generate(prompts[:2], how)
    build, ask, texts = [], [], list[list[str | None]]()
    for first in range(0, len(candidates), count):
        some = candidates[first : first + count]
        start = time.perf_counter()
        engines = [builder.build(recipe).engine for recipe in some]
        built = time.perf_counter()
        if count == 1:
            found = engines[0].generate(prompts, how)
        else:
            assert isinstance(builder, JoiningBuilder)
            found = builder.join(engines).generate(list(prompts) * len(some), how)
        build.append((built - start) / len(some))
        ask.append((time.perf_counter() - built) / len(some))
        size = len(prompts)
        texts += [found[n * size : (n + 1) * size] for n in range(len(some))]
    return statistics.median(build), statistics.median(ask), texts


@click.command(help=__doc__)
@click.option("--shape", type=click.Choice(list(SHAPES)), default="135M")
@click.option("--adapters", default=3)
@click.option("--rank", default=16)
@click.option("--problems", default=32)
@click.option("--prompt-tokens", default=60)
@click.option("--new-tokens", default=16)
@click.option("--candidates", default=8)
@click.option("--threads", default=None, type=int)
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=None)
def main(
    shape: str,
    adapters: int,
    rank: int,
    problems: int,
    prompt_tokens: int,
    new_tokens: int,
    candidates: int,
    threads: int | None,
    json_path: Path | None,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    usual = EvaluationSpec(device="cpu")
    ways: list[tuple[str, EvaluationSpec, int, Callable[[], AbstractContextManager[None]]]] = [
        ("transformers", usual, candidates, nullcontext)
    ]
    if importlib.util.find_spec("vllm"):
        vllm = EvaluationSpec(device="cpu", engine="vllm", engine_args=CACHE)
        ways += [
            ("vLLM", vllm.with_candidates(1), candidates, nullcontext),
            ("vLLM", vllm.with_candidates(candidates), candidates, nullcontext),
            ("vLLM, its own way", vllm.with_candidates(candidates), candidates, vllms_own_way),
        ]
    with tempfile.TemporaryDirectory() as name:
        base = Path(name) / "base"
        save_random(base, SHAPES[shape])
        made = save_adapters(base, Path(name) / "adapters", adapters, rank)
        drawn, draw = (
            recipes(base, made, candidates, SHAPES[shape]["num_hidden_layers"]),
            random.Random(1),
        )
        words = SHAPES[shape]["vocab_size"]
        prompts = [
            " ".join(f"w{draw.randrange(words)}" for _ in range(prompt_tokens))
            for _ in range(problems)
        ]
        rows, expected = list[Row](), list[list[str | None]]()
        for way, spec, count, within in ways:
            with within():
                build, ask, texts = run(spec, drawn[:count], prompts, Greedy(new_tokens))
            expected = expected or texts
            alike = sum(one == other for one, other in zip(texts, expected, strict=False))
            row = Row(way, spec.candidates or 1, build, ask, alike)
            rows.append(row)
            click.echo(
                f"{row.way:20} {row.at_once:2} at once: {row.build:.3f} s to build, "
                f"{row.ask:.3f} s to ask, {row.a_minute:.1f} a minute; {alike} of {len(texts)} "
                "as the first"
            )
    if json_path is not None:
        found = [{**asdict(row), "a_minute": row.a_minute} for row in rows]
        json_path.write_text(json.dumps({"threads": torch.get_num_threads(), "rows": found}))


if __name__ == "__main__":
    main()
