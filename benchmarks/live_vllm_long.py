"""Is a live vLLM, candidate after candidate, what a fresh one is on each export?

    .venv-vllm/bin/python benchmarks/live_vllm_long.py [--recipes 20] [--candidates 300]

Random models with tied and untied heads, merged by TIES. After each recipe the live engine answers
prompts; then every recipe is exported, and a vLLM that is started on the export answers the same
prompts. Then many candidates more are put into one engine, and memory and open files are counted.
"""

import gc
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import click
import psutil
import transformers
from generation import SHAPES, save_random

from evomerge_optuna.engines import candidate_builder, live
from evomerge_optuna.engines.base import CandidateBuilder, Greedy
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec import EvaluationSpec

NEW_TOKENS = 12
CACHE = 2**26  # bytes of keys and values
SPEC = EvaluationSpec(
    engine="vllm", engine_args={"kv_cache_memory_bytes": CACHE}, device="cpu", dtype="float32"
)
Replies = tuple[list[str], list[float]]


def save_models(root: Path, tied: bool) -> list[Path]:
    """Three random models."""
    folders = [root / str(seed) for seed in range(3)]
    for seed, folder in enumerate(folders):
        save_random(folder, SHAPES["tiny"], seed, tied)
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


def fresh_replies(folder: Path, prompts: list[list[int]], tokenizer: Any) -> Replies:
    """Greedy texts and log-likelihoods of a vLLM of its own, which is then ended."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        kv_cache_memory_bytes=CACHE,
    )
    params = SamplingParams(
        temperature=0,
        max_tokens=NEW_TOKENS,
        prompt_logprobs=0,
        ignore_eos=True,
        detokenize=False,
    )
    found = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    texts = [
        tokenizer.decode(one.outputs[0].token_ids, skip_special_tokens=True).strip()
        for one in found
    ]
    sums = [
        sum(places[token].logprob for token, places in zip(ids, one.prompt_logprobs, strict=True)
            if places)
        for ids, one in zip(prompts, found, strict=True)
    ]  # fmt: skip
    return texts, sums


def compare(root: Path, tied: bool, recipes: int, prompts: list[str]) -> dict[str, Any]:
    """How far the live engine is from fresh ones on the exports, at most."""
    folders = save_models(root / str(tied), tied)
    drawn, builder = random.Random(0), candidate_builder(SPEC)
    found: list[Replies] = []
    for number in range(recipes):
        one = recipe(folders, drawn.uniform(0, 2))
        candidate = builder.build(one)
        engine = candidate.engine
        texts = [str(text) for text in engine.generate(prompts, Greedy(NEW_TOKENS))]
        found.append((texts, [-nats for nats, _ in engine.negative_log_likelihoods(prompts)]))
        digest = write_recipe(one, root / f"export-{tied}-{number}", "cpu")
        assert digest == candidate.digest
    ids = [engine.reader.encode(prompt) for prompt in prompts]
    farthest, alike = 0.0, 0
    for number, (texts, sums) in enumerate(found):
        live.close()
        folder = root / f"export-{tied}-{number}"
        again, fresh = fresh_replies(folder, ids, engine.reader.tokenizer)
        farthest = max(farthest, *(abs(a - b) for a, b in zip(sums, fresh, strict=True)))
        alike += texts == again
    return {"tied": tied, "recipes": recipes, "farthest": farthest, "all texts alike": alike}


def grow(builder: CandidateBuilder, folders: list[Path], candidates: int) -> dict[str, Any]:
    """What a process has after some candidates, and after so many more."""
    drawn, process = random.Random(1), psutil.Process(os.getpid())
    seen = []
    for _ in range(2):
        for _ in range(candidates):
            engine = builder.build(recipe(folders, drawn.uniform(0, 2))).engine
            engine.generate(["w1 w2 w3"], Greedy(2))
        gc.collect()
        seen.append((process.memory_info().rss / 2**20, process.num_fds(), process.num_threads()))
    names = ("MiB", "open files", "threads")
    return {"candidates": candidates} | {
        f"{name} {when}": values[place]
        for place, name in enumerate(names)
        for when, values in zip(("before", "after"), seen, strict=True)
    }


@click.command()
@click.option("--recipes", default=20, show_default=True, type=click.IntRange(1))
@click.option("--candidates", default=300, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(recipes: int, candidates: int, json_file: Path | None) -> None:
    """Print the largest difference of a log-likelihood in nats, and what is held."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    drawn = random.Random(0)
    prompts = [
        " ".join(f"w{drawn.randrange(256)}" for _ in range(drawn.randint(2, 40))) for _ in range(16)
    ]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for tied in (True, False):
            rows.append(compare(root, tied, recipes, prompts))
            click.echo(json.dumps(rows[-1]))
        live.close()
        folders = save_models(root / "long", tied=True)
        rows.append(grow(candidate_builder(SPEC), folders, candidates))
        click.echo(json.dumps(rows[-1]))
    if json_file:
        json_file.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
