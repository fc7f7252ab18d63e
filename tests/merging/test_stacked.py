"""A stack in memory and its folded checkpoint are the same model, on every architecture.

Covers merging.folding and models.architectures, too.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.merging.memory import Budget, Room
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.stacked import stacked_model
from evomerge_optuna.models.architectures import STACKABLE, StackNames
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec
from tests.conftest import LAYERS, save_tiny_model
from tests.engine import merged_of

LLAMA_LIKE = {
    "vocab_size": 19, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
OWN = {
    "gpt2": {"vocab_size": 19, "n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 64,
             "bos_token_id": 2, "eos_token_id": 1},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 4},
}  # fmt: skip
OWN_EPSILON, SMALL_EPSILON = "own", "small"


def a_config(architecture: str, epsilon: str, tied: bool) -> Any:
    common = {} if architecture == "gpt2" else LLAMA_LIKE
    name = "layer_norm_epsilon" if architecture == "gpt2" else "rms_norm_eps"
    chosen = {} if epsilon == OWN_EPSILON else {name: 1e-12}
    return transformers.AutoConfig.for_model(
        architecture, **common, **OWN.get(architecture, {}), **chosen, tie_word_embeddings=tied
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random models of every architecture in float64, with a tokenizer."""
    root = tmp_path_factory.mktemp("architectures")
    for architecture in STACKABLE:
        for epsilon in (OWN_EPSILON, SMALL_EPSILON):
            for seed, name in enumerate("ab"):
                folder = root / architecture / epsilon / name
                save_tiny_model(folder, 0)  # its tokenizer
                torch.manual_seed(seed)
                tied = architecture.startswith("gemma") or architecture == "gpt2"
                config = a_config(architecture, epsilon, tied)
                model = AutoModelForCausalLM.from_config(config).double()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.add_(0.1 * torch.randn_like(parameter))
                model.save_pretrained(folder)
    return root


SCALES = st.floats(0.3, 1.5) | st.floats(-1.5, -0.3)


@st.composite
def stacks(draw: st.DrawFn, folder: Path) -> StackRecipe:
    """Paths with repeats, backwards, of one layer, three times as deep."""
    names = st.sampled_from([str(folder / "a"), str(folder / "b")])
    steps = st.builds(Step, model=names, layer=st.integers(0, LAYERS - 1), scale=SCALES)
    kind = draw(st.sampled_from([1, 3, LAYERS, 3 * LAYERS]))
    chosen = draw(st.lists(steps, min_size=kind, max_size=kind))
    return StackRecipe(embeddings=draw(names), steps=tuple(chosen), head=draw(names))


def logits_and_text(model: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 3, 4, 4, 10, 11]])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        text = model.generate(
            ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0, **options
        )
        return model(ids, attention_mask=mask).logits, text


def smallest_mean_square(model: Any, names: StackNames) -> float:
    """Of all that the norms read from the residual stream."""
    seen: list[float] = []
    layers = model.get_submodule(names.layers)
    norms = [layer.get_submodule(part) for layer in layers for part in names.inner]
    hooks = [
        norm.register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].pow(2).mean(dim=-1).min().item())
        )
        for norm in {id(n): n for n in [*norms, model.get_submodule(names.final_norm)]}.values()
    ]
    logits_and_text(model)
    for hook in hooks:
        hook.remove()
    return min(seen)


@pytest.mark.parametrize("epsilon", [OWN_EPSILON, SMALL_EPSILON])
@pytest.mark.parametrize("architecture", STACKABLE)
@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_folded_stack_equals_the_stack_in_memory(
    saved: Path,
    tmp_path_factory: pytest.TempPathFactory,
    architecture: str,
    epsilon: str,
    data: st.DataObject,
) -> None:
    recipe = data.draw(stacks(saved / architecture / epsilon))
    merged = merged_of(Builder(EvaluationSpec()).build(recipe))
    stacked = merged.model
    folder = tmp_path_factory.mktemp("folded") / "out"
    assert write_recipe(recipe, folder, "cpu") == merged.digest
    folded, _ = load_model(folder, "cpu")
    assert type(folded) is type(stacked)
    assert folded.config.num_hidden_layers == len(recipe.steps)

    ours, our_text = logits_and_text(stacked)
    theirs, their_text = logits_and_text(folded)
    difference = ((ours - theirs).norm() / ours.norm()).item()
    # A norm adds its epsilon to the mean square of a stream that is c times smaller when folded.
    names = STACKABLE[architecture]
    least = min(smallest_mean_square(model, names) for model in (stacked, folded))
    value = 1e-12 if epsilon == SMALL_EPSILON else 1e-5
    explained = 10 * len(recipe.steps) * value / least
    # RMSNorms compute in float32, also in a float64 model; GPT-2's LayerNorm does not.
    exact = 1e-8 if architecture == "gpt2" else 1e-5
    assert difference <= max(exact if epsilon == SMALL_EPSILON else 1e-3, explained)
    if difference < 1e-3:
        assert torch.equal(our_text, their_text)


@pytest.mark.parametrize("architecture", STACKABLE)
def test_generation_with_cache_equals_generation_without(saved: Path, architecture: str) -> None:
    folder = saved / architecture / OWN_EPSILON
    path = [("a", 0), ("b", 3), ("a", 0), ("b", 1), ("b", 1), ("a", 2)]
    steps = tuple(Step(model=str(folder / m), layer=n, scale=0.9) for m, n in path)
    recipe = StackRecipe(embeddings=str(folder / "a"), steps=steps, head=str(folder / "b"))
    stacked = merged_of(Builder(EvaluationSpec()).build(recipe)).model
    _, cached = logits_and_text(stacked, use_cache=True)
    _, uncached = logits_and_text(stacked, use_cache=False)
    assert torch.equal(cached, uncached)


@pytest.mark.parametrize("architecture", STACKABLE)
def test_the_identity_path_is_the_model_itself(saved: Path, architecture: str) -> None:
    name = str(saved / architecture / OWN_EPSILON / "a")
    steps = tuple(Step(model=name, layer=layer) for layer in range(LAYERS))
    recipe = StackRecipe(embeddings=name, steps=steps, head=name)
    stacked = merged_of(Builder(EvaluationSpec()).build(recipe)).model
    model, _ = load_model(Path(name), "cpu")
    for ours, theirs in zip(logits_and_text(stacked), logits_and_text(model), strict=True):
        assert torch.equal(ours, theirs)


def test_no_weight_is_copied_and_the_models_stay_as_they_were(saved: Path) -> None:
    folder = saved / "llama" / OWN_EPSILON
    models = {
        name: load_model(Path(name), "cpu")[0] for name in map(str, (folder / "a", folder / "b"))
    }
    before = {name: logits_and_text(model)[0] for name, model in models.items()}
    a, b = models
    steps = (Step(model=b, layer=1, scale=0.5), Step(model=b, layer=1), Step(model=a, layer=0))
    stacked = stacked_model(
        StackRecipe(embeddings=a, steps=steps, head=b), models, STACKABLE["llama"]
    )
    logits_and_text(stacked)
    own = {p.data_ptr() for model in models.values() for p in model.parameters()}
    assert all(p.data_ptr() in own for p in stacked.parameters())
    for name, model in models.items():
        assert torch.equal(logits_and_text(model)[0], before[name])
        assert model.config.num_hidden_layers == LAYERS


def test_models_of_different_depth(tmp_path: Path) -> None:
    deep = save_tiny_model(tmp_path / "deep", 1, num_hidden_layers=7)
    flat = save_tiny_model(tmp_path / "flat", 2, num_hidden_layers=2)
    steps = (Step(model=str(flat), layer=0), Step(model=str(deep), layer=6, scale=-0.8))
    recipe = StackRecipe(embeddings=str(deep), steps=steps, head=str(flat))
    stacked = merged_of(Builder(EvaluationSpec()).build(recipe)).model
    write_recipe(recipe, tmp_path / "out", "cpu")
    folded, tokenizer = load_model(tmp_path / "out", "cpu")
    assert tokenizer.get_vocab()
    torch.testing.assert_close(
        logits_and_text(stacked)[0], logits_and_text(folded)[0], rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("name", ["a b", "a+b", "a@b"])
def test_a_merge_in_a_stack_goes_into_any_folder(
    tiny: Path, tmp_path: Path, home: Path, name: str
) -> None:
    models = [{"model": str(tiny / n), "parameters": {"weight": 0.5}} for n in "ab"]
    merge = MergeRecipe(configuration={"merge_method": "linear", "models": models}, seed=0)
    steps = (Step(model="merged", layer=0), Step(model="merged", layer=0, scale=0.5))
    recipe = StackRecipe(embeddings="merged", steps=steps, head="merged", merges={"merged": merge})
    (tmp_path / name).mkdir()
    digest = write_recipe(recipe, tmp_path / name / "out", "cpu")
    assert digest == merged_of(Builder(EvaluationSpec()).build(recipe)).digest
    assert [path.name for path in (tmp_path / name).iterdir()] == ["out"]


@pytest.mark.parametrize(("stored", "run"), [("bfloat16", None), ("float32", "bfloat16")])
def test_the_identity_path_in_low_precision(
    tmp_path: Path, home: Path, stored: str, run: str | None
) -> None:
    """Rotary frequencies are not rounded with the weights, as they are not in a checkpoint."""
    folder = save_tiny_model(tmp_path / "a", 0)
    AutoModelForCausalLM.from_pretrained(folder, dtype=stored).save_pretrained(folder)
    name = str(folder)
    steps = tuple(Step(model=name, layer=layer) for layer in range(LAYERS))
    recipe = StackRecipe(embeddings=name, steps=steps, head=name, dtype=run)
    merged = merged_of(Builder(EvaluationSpec(device="cpu")).build(recipe))
    model, _ = load_model(folder, "cpu", run)
    ids = torch.arange(40)[None] % model.config.vocab_size
    with torch.no_grad():
        assert torch.equal(merged.model(ids).logits, model(ids).logits)


def test_models_that_do_not_fit_are_copied_as_far_as_a_stack_has_them(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cast for each stack here, as they would be copied to another device: the same stacks."""
    a, b = (str(saved / "llama" / OWN_EPSILON / name) for name in "ab")
    steps = (Step(model=b, layer=1, scale=-0.5), Step(model=b, layer=1), Step(model=a, layer=0))
    recipe = StackRecipe(embeddings=a, steps=steps, head=b, dtype="float32")
    plain = merged_of(Builder(EvaluationSpec()).build(recipe))
    assert write_recipe(recipe, tmp_path / "kept", "cpu") == plain.digest

    monkeypatch.setattr(Room, "of", lambda *_: Room(Budget(0), Budget(0)))
    said: list[str] = []
    builder = Builder(EvaluationSpec(), said.append)
    first = merged_of(builder.build(recipe))
    assert first.digest == plain.digest
    assert torch.equal(logits_and_text(first.model)[0], logits_and_text(plain.model)[0])
    one, two, _ = first.model.model.layers
    assert one.mlp.up_proj.weight is two.mlp.up_proj.weight
    assert said == [
        "models in memory: 0.00 GB do not fit on the device; a stack's layers are copied to it for "
        "each candidate"
    ]
    builder.build(recipe.model_copy(update={"steps": steps[:1]}))
    assert one.mlp.up_proj.weight.numel() == 0  # no two stacks are copied at a time
    assert write_recipe(recipe, tmp_path / "streamed", "cpu") == plain.digest
    kept, streamed = (digest_files(tmp_path / name) for name in ("kept", "streamed"))
    assert streamed == kept
