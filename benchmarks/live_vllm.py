"""How fast does a live vLLM answer, and take the next candidate, beside the engine of transformers.

    .venv-vllm/bin/python benchmarks/live_vllm.py [--problems 64] [--repeats 3] [--json PATH]

Random models of the shape of SmolLM2-135M, merged by TIES, answer prompts of 20 to 200 tokens with
64 tokens each, in both engines in turns.
"""

import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec import EvaluationSpec

NEW_TOKENS = 64
ENGINES: dict[str, dict[str, Any]] = {
    "transformers": {},
    "vllm": {"engine": "vllm"},
}
SHAPES: dict[str, dict[str, int]] = {
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 256,
    },
}


def save_models(root: Path, dtype: str, shape: dict[str, int], tied: bool = True) -> list[Path]:
    """Three random models that no answer ends."""
    vocabulary = {f"w{number}": number for number in range(shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folders = []
    for seed in range(3):
        torch.manual_seed(seed)
        config = LlamaConfig(
            **shape,
            max_position_embeddings=2048,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        folder = root / dtype / str(seed)
        LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0").save_pretrained(folder)
        folders.append(folder)
    return folders


def recipe(folders: list[Path], weight: float) -> MergeRecipe:
    base, *others = map(str, folders)
    return MergeRecipe(
        configuration={
            "merge_method": "ties",
            "base_model": base,
            "models": [
                {"model": m, "parameters": {"weight": weight, "density": 0.5}} for m in others
            ],
        },
        seed=0,
    )


def answered(engine: TextEngine, prompts: list[str]) -> float:
    """Seconds that the answers take."""
    start = time.perf_counter()
    engine.generate(prompts, Greedy(NEW_TOKENS))
    return time.perf_counter() - start


@click.command()
@click.option("--problems", default=64, show_default=True, type=click.IntRange(1))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@click.option("--shape", default="135M", show_default=True, type=click.Choice(list(SHAPES)))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(problems: int, repeats: int, threads: int, shape: str, json_file: Path | None) -> None:
    """Print problems a second, and the seconds that the next candidate takes."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)
    drawn = random.Random(0)
    words = SHAPES[shape]["vocab_size"]
    prompts = [
        " ".join(f"w{drawn.randrange(words)}" for _ in range(drawn.randint(20, 200)))
        for _ in range(problems)
    ]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for dtype in ("float32", "bfloat16"):
            folders = save_models(Path(name), dtype, SHAPES[shape])
            builders = {
                engine: candidate_builder(EvaluationSpec(**given, device="cpu"))
                for engine, given in ENGINES.items()
            }
            built: dict[str, list[float]] = {engine: [] for engine in ENGINES}
            took: dict[str, list[float]] = {engine: [] for engine in ENGINES}
            for turn in range(repeats + 1):  # the first reads the models and starts vLLM
                for engine, builder in builders.items():
                    start = time.perf_counter()
                    candidate = builder.build(recipe(folders, 0.5 + 0.1 * turn))
                    built[engine].append(time.perf_counter() - start)
                    took[engine].append(answered(candidate.engine, prompts))
            for engine in ENGINES:
                row = {
                    "dtype": dtype,
                    "engine": engine,
                    "problems a second": problems / statistics.median(took[engine][1:]),
                    "next candidate": statistics.median(built[engine][1:]),
                    "first candidate": built[engine][0],
                }
                rows.append(row)
                click.echo(
                    f"{dtype:<10}{engine:<14}{row['problems a second']:7.2f} problems/s"
                    f"{row['next candidate']:7.2f} s for the next candidate"
                    f"{row['first candidate']:7.1f} s for the first"
                )
            times = statistics.median(
                one / other
                for one, other in zip(took["transformers"][1:], took["vllm"][1:], strict=True)
            )
            rows.append({"dtype": dtype, "times": times})
            click.echo(f"{dtype:<10}vLLM answers {times:.2f} times as fast")
    if json_file:
        json_file.write_text(json.dumps({"problems": problems, "threads": threads, "rows": rows}))


if __name__ == "__main__":
    main()
