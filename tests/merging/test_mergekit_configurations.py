"""Merges of the kinds that mergekit's own tests make: ours are mergekit's, bit for bit.

Two models with the weights 0.6 and 0.4 in bfloat16 by every method, options that change how a
method goes about it, gradients in scientific notation, filters. Covers merging.registry, too.
"""

from pathlib import Path
from typing import Any

import pytest
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions

from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.methods import BASELINES, METHODS
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.recipes.merge import MergeRecipe

EVERY = METHODS | BASELINES
NEEDED = {"slerp": {"t": 0.35}, "nearswap": {"t": 1e-4}, "ties": {"density": 0.3}}
NEEDED |= {"dare_ties": {"density": 0.66}, "dare_linear": {"density": 0.66}}
NEEDED |= {name: {"density": 0.7, "epsilon": 0.15} for name in ("della", "della_linear")}
OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "rows compared": ("model_stock", {"filter_wise": True}),
    "few steps": ("karcher", {"max_iter": 2}),
    "rows turned": ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "columns turned": ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": False}),
    "unnormalized": ("multislerp", {"normalize_weights": False}),
    "outliers": ("breadcrumbs_ties", {"density": 0.9, "gamma": 0.03, "rescale": True}),
    "a half": ("sce", {"select_topk": 0.5}),
    "gradient": ("nearswap", {"t": [1e-5, 1e-3]}),
    "gradient of a share": ("dare_ties", {"density": [1, 0.7, 0.1]}),
    "filters": (
        "della",
        {"epsilon": 0.05, "density": [{"filter": "mlp", "value": 0.9}, {"value": 0.4}]},
    ),
    "switch by depth": ("ties", {"density": 0.5, "normalize": [True, False]}),
}


def recipe_of(tiny: Path, method: str, parameters: dict[str, Any], base: bool) -> MergeRecipe:
    row = EVERY[method]
    models = [
        {"model": str(tiny / alias), "parameters": {"weight": weight}}
        for alias, weight in list({"a": 0.6, "b": 0.4}.items())[: row.sources[1]]
    ]
    configuration = {
        "merge_method": method,
        "models": models,
        "dtype": "bfloat16",
        **({"parameters": parameters} if parameters else {}),
        **({"base_model": str(tiny / "base")} if base else {}),
    }
    return MergeRecipe(configuration=configuration, seed=7)


CASES = [
    *((name, NEEDED.get(name, {}), row.base != "ignored") for name, row in EVERY.items()),
    *((name, {}, False) for name, row in EVERY.items() if row.base == "optional"),
    *((method, parameters, EVERY[method].base != "ignored")
      for method, parameters in OPTIONS.values()),
]  # fmt: skip


@pytest.mark.parametrize(("method", "parameters", "base"), CASES, ids=str)
def test_it_is_mergekits(
    tiny: Path, tmp_path: Path, method: str, parameters: dict[str, Any], base: bool
) -> None:
    recipe = recipe_of(tiny, method, parameters, base)
    configuration = MergeConfiguration.model_validate(recipe.configuration)
    options = MergeOptions(random_seed=recipe.seed, write_model_card=False, quiet=True)
    run_merge(configuration, str(tmp_path / "theirs"), options)
    merger = ResidentMerger("cpu")
    for _ in range(2):  # the second merge is from memory
        stream = merger.stream(recipe)
        assert sum(1 for _ in stream) > 0
        assert stream.digest() == digest_files(tmp_path / "theirs")
