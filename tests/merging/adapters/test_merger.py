"""Merged adapters against peft's own `add_weighted_adapter` and against whole models' arithmetic.

Covers merging.adapters.arithmetic and merging.adapters.written, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.merging.adapters.merger import AdapterMerger
from evomerge_optuna.merging.adapters.written import write_adapter
from evomerge_optuna.methods import ADAPTER_METHODS
from evomerge_optuna.models.adapters import ADAPTER_WEIGHTS
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from tests.adapters import KINDS, save_base, save_lora

WEIGHTS = {"x": 0.5, "y": -0.3, "z": 1.1}
PEFTS_OWN = [name for name in ADAPTER_METHODS if name != "lorahub"]
Tensors = Mapping[str, torch.Tensor]


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and three adapters of unlike alphas; each but the first changes fewer modules.

    One has rsLoRA; none changes the last module of another.
    """
    root = tmp_path_factory.mktemp(request.param)
    _, modules = KINDS[request.param]
    base = save_base(root / "base", request.param)
    for seed, name in enumerate(WEIGHTS):
        own = modules[seed % 2 :]
        save_lora(root / name, base, seed, own, lora_alpha=6 + seed, use_rslora=seed == 1)
    return root


def a_recipe(root: Path, method: str, names: Any = WEIGHTS, **given: Any) -> AdapterRecipe:
    base = str(root / "base")
    density = {"density": 0.6} if ADAPTER_METHODS[method].prunes else {}
    values = {f"{base}+{root / n}": {"weight": WEIGHTS[n], **density} for n in names}
    settings = {
        "base_model": base,
        "adapters": tuple(values),
        "method": method,
        "groups": (ModuleGroup(values=values),),
        "layers": 3,
        "reads_as": next(iter(values)),
        "seed": 3,
    }
    return AdapterRecipe.model_validate(settings | given)


def tensors_of(recipe: AdapterRecipe) -> dict[str, torch.Tensor]:
    return dict(AdapterMerger().stream(recipe))


def by_peft(root: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> Tensors:
    """What peft's own function makes of the same adapters, masks seeded alike."""
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    model = PeftModel.from_pretrained(base, root / "x", adapter_name="x")
    for name in ("y", "z"):
        model.load_adapter(root / name, name)
    lora = model.base_model
    inject = lora.inject_adapter

    def seeded(*args: Any, **options: Any) -> None:
        inject(*args, **options)
        torch.manual_seed(3)  # it draws the new adapter's first weights, too

    monkeypatch.setattr(lora, "inject_adapter", seeded)
    lora.add_weighted_adapter(
        list(WEIGHTS),
        list(WEIGHTS.values()),
        "merged",
        combination_type=method,
        density=0.6,
        svd_full_matrices=False,
    )
    tensors: Tensors = get_peft_model_state_dict(
        model, adapter_name="merged", save_embedding_layers=False
    )
    return tensors


def products(tensors: Tensors) -> dict[str, torch.Tensor]:
    """B times A of each module."""
    found = {}
    for name, a in tensors.items():
        for part in ("lora_A", "lora_embedding_A"):
            if part in name:
                found[name.partition(f".{part}")[0]] = tensors[name.replace("_A", "_B")] @ a
    return found


@pytest.mark.parametrize("method", PEFTS_OWN)
def test_peft_makes_the_same(method: str, family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, theirs = tensors_of(a_recipe(family, method)), by_peft(family, method, monkeypatch)
    assert found.keys() == theirs.keys()
    if method == "svd":  # which is decomposed without the whole product, so up to signs
        mine, other = products(found), products(theirs)
        for module, product in other.items():
            torch.testing.assert_close(mine[module], product, rtol=1e-4, atol=1e-5)
        return
    for name, tensor in theirs.items():
        rows, columns = tensor.shape
        assert torch.equal(found[name][:rows, :columns], tensor), name


@settings(max_examples=20)
@given(
    ranks=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    alphas=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    weights=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    pattern=st.booleans(),
    rslora=st.booleans(),
)
def test_cat_is_the_weighted_sum_of_what_adapters_add_to_whole_models(
    ranks: list[int],
    alphas: list[int],
    weights: list[float],
    pattern: bool,
    rslora: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("cat")
    base = save_base(root / "base")
    names = list("xyz")[: len(ranks)]
    for seed, (name, rank, alpha) in enumerate(zip(names, ranks, alphas, strict=False)):
        patterns = {"rank_pattern": {"layers.1.self_attn.q_proj": rank + 2}} if pattern else {}
        if pattern and not rslora:
            patterns["alpha_pattern"] = {"v_proj": alpha + 3}
        modules = ["q_proj", "v_proj", "down_proj"][: 2 + seed % 2]
        save_lora(
            root / name,
            base,
            seed,
            modules,
            r=rank,
            lora_alpha=alpha,
            use_rslora=rslora,
            **patterns,
        )
        file = root / name / ADAPTER_WEIGHTS
        doubles = {k: v.double() for k, v in load_file(file).items()}
        save_file(doubles, file, metadata={"format": "pt"})
    values = {f"{base}+{root / n}": {"weight": w} for n, w in zip(names, weights, strict=False)}
    recipe = a_recipe(
        root,
        "cat",
        adapters=tuple(values),
        groups=(ModuleGroup(values=values),),
        reads_as=next(iter(values)),
    )
    own = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64).state_dict()
    wanted = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    for name, weight in zip(names, weights, strict=False):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
        adapted = PeftModel.from_pretrained(model, root / name, autocast_adapter_dtype=False)
        merged = adapted.merge_and_unload().state_dict()
        for key, tensor in merged.items():
            wanted[key] += weight * (tensor - own[key])
    found = products(tensors_of(recipe))
    for module, product in found.items():
        key = f"{module.removeprefix('base_model.model.')}.weight"
        torch.testing.assert_close(product, wanted.pop(key), rtol=1e-9, atol=1e-9)
    assert not any(tensor.any() for tensor in wanted.values())


def test_lorahub_weights_each_half(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    for seed, name in enumerate(WEIGHTS):
        save_lora(tmp_path / name, base, seed, ["q_proj"], lora_alpha=8)
    found = tensors_of(a_recipe(tmp_path, "lorahub"))
    own = {name: load_file(tmp_path / name / ADAPTER_WEIGHTS) for name in WEIGHTS}
    for name, tensor in found.items():
        summed = sum(weight * own[who][name] for who, weight in WEIGHTS.items())
        torch.testing.assert_close(tensor, summed * 2**0.5)  # the root of the scaling 8 / 4


def test_groups_have_their_own_values(tmp_path: Path) -> None:
    """Of layers and of parts of names; interpolated ones lie between the points."""
    base = save_base(tmp_path / "base")
    save_lora(tmp_path / "x", base, 0, ["q_proj", "down_proj", "embed_tokens", "lm_head"])
    who = f"{base}+{tmp_path / 'x'}"

    def share(groups: list[dict[str, Any]]) -> dict[str, float]:
        recipe = a_recipe(tmp_path, "cat", ["x"], groups=groups)
        once = products(
            tensors_of(
                a_recipe(tmp_path, "cat", ["x"], groups=[{"values": {who: {"weight": 1.0}}}])
            )
        )
        found = products(tensors_of(recipe))
        return {n: round(float((found[n] / once[n]).median()), 4) for n in once}

    def of(weight: Any) -> dict[str, Any]:
        return {"values": {who: {"weight": weight}}}

    found = share(
        [
            {"layers": (0, 2), "filter": "mlp"} | of(0.1),
            {"layers": (0, 2)} | of(0.2),
            {"layers": (2, 3)} | of(0.3),
        ]
    )
    layer = "base_model.model.model.layers"
    assert found == {
        "base_model.model.model.embed_tokens": 0.2,
        f"{layer}.0.self_attn.q_proj": 0.2,
        f"{layer}.0.mlp.down_proj": 0.1,
        f"{layer}.1.self_attn.q_proj": 0.2,
        f"{layer}.1.mlp.down_proj": 0.1,
        f"{layer}.2.self_attn.q_proj": 0.3,
        f"{layer}.2.mlp.down_proj": 0.3,
        "base_model.model.lm_head": 0.3,
    }
    between = share([of((0.0, 0.5, 2.0))])
    assert [between[f"{layer}.{n}.self_attn.q_proj"] for n in range(3)] == [0.0, 0.5, 2.0]
    assert share([of((1.0, 2.0))])[f"{layer}.1.mlp.down_proj"] == 1.5


def test_a_density_of_each_adapter(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    for seed, name in enumerate("xy"):
        save_lora(tmp_path / name, base, seed, ["q_proj"])
    x, y = (f"{base}+{tmp_path / name}" for name in "xy")
    kept = {x: {"weight": 1.0, "density": 0.25}, y: {"weight": 0.0, "density": 1.0}}
    recipe = a_recipe(tmp_path, "magnitude_prune", "xy", groups=(ModuleGroup(values=kept),))
    for tensor in tensors_of(recipe).values():
        assert float((tensor != 0).double().mean()) == 0.25


def test_a_rank_that_is_cut_keeps_the_nearest_product_and_tells_what_is_lost(
    tmp_path: Path,
) -> None:
    base = save_base(tmp_path / "base")
    # The modules of x alone have a rank that is not cut; their norm is of the merge, too.
    save_lora(tmp_path / "x", base, 0, ["q_proj", "v_proj"], rank_pattern={"v_proj": 2})
    save_lora(tmp_path / "y", base, 1, ["q_proj"])
    whole = products(tensors_of(a_recipe(tmp_path, "cat", "xy")))
    written = write_adapter(a_recipe(tmp_path, "cat", "xy", max_rank=3), tmp_path / "cut")
    cut = products(load_file(tmp_path / "cut" / ADAPTER_WEIGHTS))
    lost = norm = 0.0
    for module, product in whole.items():
        u, s, vh = torch.linalg.svd(product.double())
        nearest = u[:, :3] @ s[:3].diag() @ vh[:3]
        torch.testing.assert_close(cut[module].double(), nearest, rtol=1e-4, atol=1e-5)
        lost += float(s[3:].square().sum())
        norm += float(s.square().sum())
    assert written.rank == 3
    assert written.lost == pytest.approx((lost / norm) ** 0.5, rel=1e-4)
    assert written.in_words().startswith("rank 3, to which it is cut")


def test_the_same_recipe_is_the_same_adapter_and_another_seed_another(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    for seed, name in enumerate("xy"):
        save_lora(tmp_path / name, base, seed, ["q_proj"])

    def digest(**given: Any) -> str:
        stream = AdapterMerger().stream(a_recipe(tmp_path, "dare_ties", "xy", **given))
        torch.manual_seed(len(given))  # whatever was drawn before
        assert dict(stream)
        return stream.digest()

    assert digest() == digest()
    assert digest() != digest(seed=4)


def test_a_merge_of_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    save_lora(tmp_path / "x", base, 0, ["q_proj"])
    values = {f"{base}+{tmp_path / 'x'}": {"weight": 1e300}}
    recipe = a_recipe(tmp_path, "cat", ["x"], groups=(ModuleGroup(values=values),))
    stream = AdapterMerger().stream(recipe)
    for _ in stream:
        pass
    with pytest.raises(NotFiniteError, match=r"lora_A.weight has NaN or infinite"):
        stream.complete()
