"""How fast a layer stack is built and run: in memory beside writing and loading its checkpoint.

    python benchmarks/stack.py [--repeats 5] [--layers 30] [--json PATH]

A random path of 1.5 times the depth over two random Llamas of the shape of SmolLM2-135M, which has
30 layers. Running
is compared with the first model itself, per layer: seconds of a forward pass of 8 prompts of 64
tokens, divided by the number of layers.
"""

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
import transformers
from merge import SHAPE_135M, median_seconds, random_models
from transformers import AutoModelForCausalLM

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.merging.folding import FoldedStack
from evomerge_optuna.merging.stack_sources import load_source
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.stream import write_stream
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec


def a_path(models: list[str], depth: int, number: int) -> StackRecipe:
    drawn = random.Random(number)
    steps = tuple(
        Step(
            model=drawn.choice(models), layer=drawn.randrange(depth), scale=drawn.uniform(0.8, 1.2)
        )
        for _ in range(depth * 3 // 2)
    )
    return StackRecipe(embeddings=models[0], steps=steps, head=models[0])


@click.command()
@click.option("--repeats", default=5, show_default=True, type=click.IntRange(1))
@click.option("--layers", default=SHAPE_135M.num_hidden_layers, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(repeats: int, layers: int, json_file: Path | None) -> None:
    """Print medians and ratios."""
    transformers.utils.logging.disable_progress_bar()
    shape = transformers.LlamaConfig(**SHAPE_135M.to_dict() | {"num_hidden_layers": layers})
    with tempfile.TemporaryDirectory() as folder:
        _, *models = random_models(Path(folder), 2, shape)
        builder = candidate_builder(EvaluationSpec())
        builder.build(a_path(models, layers, 0))
        sources = {name: load_source(name, None, "cpu") for name in models}

        def write_and_load(number: int) -> None:
            recipe = a_path(models, layers, number)
            with tempfile.TemporaryDirectory() as out:
                write_stream(FoldedStack(recipe, sources), Path(out))
                complete_model(AutoModelForCausalLM, Path(out), dtype="auto")

        written = median_seconds(write_and_load, repeats)
        built = median_seconds(
            lambda number: builder.build(a_path(models, layers, number)), 10 * repeats
        )

        recipe = a_path(models, layers, 0)
        stacked = builder.build(recipe).engine.raw("a benchmark").model
        parent = sources[models[0]].model
        ids = torch.randint(3, 80, (8, 64))

        def per_layer(model: torch.nn.Module, layers: int) -> Callable[[int], float]:
            def run(_: int) -> float:
                with torch.inference_mode():
                    start = time.perf_counter()
                    model.base_model(ids)
                    return (time.perf_counter() - start) / layers

            return run

        stack_run = per_layer(stacked, len(recipe.steps))
        parent_run = per_layer(parent, layers)
        pairs = [(stack_run(0), parent_run(0)) for _ in range(4 * repeats)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs[1:])
    click.echo(f"write and load a folded stack  {written:8.3f} s")
    click.echo(
        f"build it in memory             {built:8.5f} s   {written / built:,.0f} times faster"
    )
    click.echo(f"time per layer, stack / parent {ratio:8.2f}")
    if json_file:
        found = {"write and load": written, "build": built, "per layer": ratio}
        json_file.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
