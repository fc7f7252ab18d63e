"""How fast the denoiser of an image pipeline is merged, and in which memory: mergekit and ours.

    python benchmarks/images.py [--size tiny] [--size sd15] [--method ties] [--repeats 3]

All from one run over the same random pipelines, a base and two sources in bfloat16; `sd15` has the
UNet of Stable Diffusion 1.5 (860M parameters). mergekit's way is `mergekit-pytorch`, its program
for tensors of any kind, which reads and writes files. Ours makes each candidate in the memory of a
pipeline that is ready to draw, and hashes it. Each way runs in a process of its own.
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
from typing import Any

import click
import diffusers
import torch
import transformers
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from evomerge_optuna.engines.diffusers import Builder
from evomerge_optuna.families import family_of_host
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec import EvaluationSpec

METHODS = ("linear", "task_arithmetic", "ties", "dare_ties")
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32},
    "sd15": {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
}
SPEC = EvaluationSpec(engine="diffusers", device="cpu")


def random_pipelines(folder: Path, size: str) -> list[str]:
    """A base and two sources that differ from it by a tenth of its spread; all else is tiny."""
    torch.manual_seed(0)
    width = SIZES[size]["cross_attention_dim"]
    text = transformers.CLIPTextConfig(
        vocab_size=4,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=8,
        bos_token_id=2,
        eos_token_id=3,
    )
    words = {word: number for number, word in enumerate(("<pad>", "<unk>", "<s>", "</s>"))}
    own = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_words(words), pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    base = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderTiny(),
        text_encoder=transformers.CLIPTextModel(text),
        tokenizer=own,
        unet=diffusers.UNet2DConditionModel(**SIZES[size]),
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(torch.bfloat16)
    base.save_pretrained(folder / "base")
    tensors = base.unet.state_dict()
    for seed, name in enumerate("ab", start=1):
        base.save_pretrained(folder / name)
        generator = torch.Generator().manual_seed(seed)
        moved = {
            key: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator)
            for key, tensor in tensors.items()
        }
        moved = {key: tensor.to(torch.bfloat16) for key, tensor in moved.items()}
        file = folder / name / "unet" / "diffusion_pytorch_model.safetensors"
        save_file(moved, file, {"format": "pt"})
    return [str(folder / name) for name in ("base", "a", "b")]


def _words(words: dict[str, int]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def a_recipe(method: str, models: list[str], number: int) -> MergeRecipe:
    """Another candidate for each number, all of one structure."""
    drawn = random.Random(number)
    base, *sources = models
    names = ("weight", "density") if "ties" in method else ("weight",)
    entries = [
        {"model": source, "parameters": {name: drawn.uniform(0.2, 0.9) for name in names}}
        for source in sources
    ]
    configuration: dict[str, Any] = {"merge_method": method, "models": entries}
    if method != "linear":
        configuration["base_model"] = base
    return MergeRecipe(configuration=configuration, seed=0, host=base)


def mergekits(method: str, models: list[str], repeats: int) -> dict[str, float]:
    """Seconds of mergekit-pytorch, and its peak of memory in MB beyond its imports."""
    from mergekit.scripts.merge_raw_pytorch import main as mergekit_pytorch

    def run(number: int) -> None:
        recipe = a_recipe(method, models, number)
        flat = family_of_host(models[0]).for_mergekit(recipe, str)
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "recipe.yml"
            file.write_text(flat.to_yaml())
            mergekit_pytorch([str(file), f"{place}/out", "--quiet"], standalone_mode=False)

    return measured(run, repeats)


def ours(method: str, models: list[str], repeats: int) -> dict[str, float]:
    """Seconds of a candidate from the second on, and the peak of memory with the pipeline."""
    builder = Builder(SPEC)
    before = memory("VmRSS")
    builder.load(a_recipe(method, models, 0))
    builder.build(a_recipe(method, models, 0))
    found = measured(lambda number: builder.build(a_recipe(method, models, number)), repeats)
    return found | {"MB": memory("VmHWM") - before}


def measured(run: Callable[[int], object], repeats: int) -> dict[str, float]:
    before, taken = memory("VmRSS"), []
    for number in range(1, repeats + 1):
        start = time.perf_counter()
        run(number)
        taken.append(time.perf_counter() - start)
    return {"seconds": statistics.median(taken), "MB": memory("VmHWM") - before}


def memory(line: str) -> float:
    """A line of this process's status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(line)).split()[1]) / 1000


@click.command()
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), default=list(SIZES))
@click.option("--method", "methods", multiple=True, type=click.Choice(METHODS), default=METHODS)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    sizes: tuple[str, ...], methods: tuple[str, ...], repeats: int, json_file: Path | None
) -> None:
    """Print medians and memory."""
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    table = Table(title=f"A denoiser merged, medians; {torch.get_num_threads()} threads")
    for column in ("size", "method", "mergekit-pytorch, s", "ours with hash, s", "times faster"):
        table.add_column(column)
    for column in ("mergekit-pytorch, MB", "ours, MB"):
        table.add_column(column)
    results = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            models = random_pipelines(Path(folder), size)
            for method in methods:
                found = {}
                for way in (mergekits, ours):
                    with multiprocessing.get_context("spawn").Pool(1) as pool:
                        found[way.__name__] = pool.apply(way, (method, models, repeats))
                theirs, own = found["mergekits"], found["ours"]
                table.add_row(
                    *(size, method, f"{theirs['seconds']:.2f}", f"{own['seconds']:.2f}"),
                    f"{theirs['seconds'] / own['seconds']:.1f}",
                    *(f"{theirs['MB']:.0f}", f"{own['MB']:.0f}"),
                )
                results.append({"size": size, "method": method, **found})
    Console(width=140).print(table)
    if json_file:
        json_file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
