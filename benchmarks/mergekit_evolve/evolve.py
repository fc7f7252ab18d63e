"""The search of mergekit-evolve 0.1.5 on a machine without CUDA; runs in its own environment.

    python evolve.py search GENOME STORAGE [--in-memory] [--max-fevals 162] [--seed 0]
    python evolve.py score MODEL TASK [--dtype bfloat16]

`search` does what `mergekit.scripts.evolve.main` does, with the same defaults, from reading the
genome to saving the best model: the functions that it calls are mergekit's own, but they are called
in this process, not in Ray's actors, which ask for a CUDA device each. Each candidate is a line of
STORAGE/candidates.jsonl. `score` is what mergekit-evolve does with a merged model. Both run in the
folder that has the problems.
"""

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import cma
import lm_eval.models
import lm_eval.tasks
import numpy as np
import yaml

# mergekit.evo.actors names this class while it is imported, and lm-eval has it only beside vLLM.
vllm_causallms = ModuleType("lm_eval.models.vllm_causallms")
vllm_causallms.VLLM = type("VLLM", (), {})
sys.modules[vllm_causallms.__name__] = lm_eval.models.vllm_causallms = vllm_causallms

from mergekit.evo.actors import InMemoryMergeEvaluator  # noqa: E402
from mergekit.evo.config import EvolMergeConfiguration, TaskConfiguration  # noqa: E402
from mergekit.evo.genome import ModelGenome, ModelGenomeDefinition  # noqa: E402
from mergekit.evo.helpers import evaluate_model, merge_model  # noqa: E402
from mergekit.io.tasks import ReturnTensor  # noqa: E402
from mergekit.merge import run_merge  # noqa: E402
from mergekit.options import MergeOptions  # noqa: E402
from mergekit.plan import MergePlanner  # noqa: E402
from mergekit.scripts.evolve import _reshard_model  # noqa: E402

TASKS = Path(__file__).parent / "tasks"


@click.group()
def main() -> None:
    """mergekit-evolve without Ray and CUDA."""


@main.command()
@click.argument("genome_file", type=click.Path(path_type=Path))
@click.argument("storage", type=click.Path(path_type=Path))
@click.option("--in-memory", is_flag=True)
@click.option("--max-fevals", default=162, show_default=True)
@click.option("--batch-size", type=int, help="Of lm-eval, which takes 1 unless given.")
@click.option("--seed", default=0, show_default=True, help="Of CMA-ES; the script sets none.")
def search(
    genome_file: Path,
    storage: Path,
    in_memory: bool,
    max_fevals: int,
    batch_size: int | None,
    seed: int,
) -> None:
    """Search; the best model is saved in STORAGE/final_model."""
    config = EvolMergeConfiguration.model_validate(yaml.safe_load(genome_file.read_text()))
    options = MergeOptions(
        transformers_cache=str(storage / "transformers_cache"),
        lora_merge_cache=str(storage / "lora_merge_cache"),
        cuda=False,
        low_cpu_memory=False,
        out_shard_size=1_000_000_000_000,
        random_seed=0,
        quiet=True,
        read_to_gpu=False,
        copy_tokenizer=True,
        safe_serialization=True,
    )
    genome = resharded(config, storage, options)
    evaluate = (in_memory_evaluator if in_memory else on_disk_evaluator)(
        config, genome, options, storage, batch_size
    )
    log = (storage / "candidates.jsonl").open("a")

    def parallel_evaluate(genotypes: list[np.ndarray]) -> list[float]:
        scores = []
        for genotype in genotypes:
            scores.append(evaluate(genotype)["score"])
            print(json.dumps({"time": time.time(), "score": scores[-1]}), file=log, flush=True)
        return [-score for score in scores]

    best = np.inf

    def write_best(es: Any) -> None:
        nonlocal best
        if es.result.fbest < best:
            best = es.result.fbest
            found = genome.genotype_merge_config(es.result.xbest)
            (storage / "best_config.yaml").write_text(found.to_yaml())

    x0 = genome.initial_genotype(random=config.random_init).view(-1).numpy()
    xbest, _ = cma.fmin2(
        None,
        parallel_objective=parallel_evaluate,
        x0=x0,
        sigma0=1 / 6,
        options={"maxfevals": max_fevals, "timeout": None, "seed": seed + 1},  # 0 is the clock
        callback=write_best,
    )
    # With the original models again, as the script saves it.
    final = ModelGenome(config.genome).genotype_merge_config(xbest)
    run_merge(final, str(storage / "final_model"), options)


@main.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("task")
@click.option("--dtype", default="bfloat16", show_default=True)
@click.option("--batch-size", default=256, show_default=True)
def score(model: Path, task: str, dtype: str, batch_size: int) -> None:
    """Print the score of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(model, f"{folder}/model")  # evaluate_model removes what it scored
        found = evaluate_model(
            copy,
            [TaskConfiguration(name=task)],
            num_fewshot=None,
            limit=None,
            vllm=False,
            batch_size=batch_size,
            task_manager=task_manager(),
            model_kwargs={"dtype": dtype},
            apply_chat_template=False,
            device="cpu",
        )
    click.echo(json.dumps(found["score"]))


def task_manager() -> lm_eval.tasks.TaskManager:
    return lm_eval.tasks.TaskManager(include_path=[str(TASKS)])


def resharded(config: EvolMergeConfiguration, storage: Path, options: MergeOptions) -> ModelGenome:
    """The genome over bfloat16 copies of the models, as the script makes them by default."""
    copies = {
        model: _reshard_model(model, str(storage), options.lora_merge_cache, False)
        for model in (*config.genome.models, config.genome.base_model)
    }
    rest = config.genome.model_dump(exclude={"models", "base_model"})
    models = [copies[model] for model in config.genome.models]
    base = copies[config.genome.base_model]
    return ModelGenome(
        ModelGenomeDefinition.model_validate({**rest, "models": models, "base_model": base})
    )


def on_disk_evaluator(
    config: EvolMergeConfiguration,
    genome: ModelGenome,
    options: MergeOptions,
    storage: Path,
    batch_size: int | None,
) -> Any:
    """What `OnDiskMergeEvaluator.evaluate_genotype` does."""
    tasks = task_manager()

    def evaluate(genotype: np.ndarray) -> dict[str, Any]:
        path = merge_model(genotype, genome, str(storage / "merged"), options)
        return evaluate_model(
            path,
            config.tasks,
            num_fewshot=config.num_fewshot,
            limit=config.limit,
            vllm=False,
            batch_size=batch_size,
            task_manager=tasks,
            apply_chat_template=config.apply_chat_template,
            fewshot_as_multiturn=config.fewshot_as_multiturn,
            device="cpu",  # lm-eval would take CUDA
        )

    return evaluate


def in_memory_evaluator(
    config: EvolMergeConfiguration,
    genome: ModelGenome,
    options: MergeOptions,
    storage: Path,
    batch_size: int | None,
) -> Any:
    """`InMemoryMergeEvaluator` itself, taken out of its Ray actor."""
    MergePlanner.plan_in_memory = plan_in_memory
    actor = InMemoryMergeEvaluator.__ray_metadata__.modified_class
    return actor(
        config,
        genome,
        options,
        model_storage_path=str(storage / "merged"),
        batch_size=batch_size,
        task_manager=task_manager(),
    ).evaluate_genotype


def plan_in_memory(planner: MergePlanner) -> list[ReturnTensor]:
    """mergekit's own, but for the validation, which fails on the abstract `Task[torch.Tensor]`."""
    planner._plan()
    return [
        ReturnTensor.model_construct(
            weight_info=weight,
            tensor_task=task,
            dtype=weight.force_dtype or planner.config.out_dtype,
        )
        for weight, task in planner._tensors
    ]


if __name__ == "__main__":
    main()
