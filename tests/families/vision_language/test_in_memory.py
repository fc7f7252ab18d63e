"""A merged vision-language model: the text part is mergekit's, all else is the source's.

Covers families.vision_language.checkpoint and families.vision_language.family, too.
"""

import json
import tempfile
import weakref
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from evomerge_optuna.engines.base import Candidate
from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import CandidateError
from evomerge_optuna.families import family_of, merged_folder
from evomerge_optuna.families.vision_language.checkpoint import (
    config_of_whole,
)
from evomerge_optuna.families.vision_language.in_memory import with_text, without_layers
from evomerge_optuna.merging.memory import Budget, Room
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.methods import METHODS
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spec import EvaluationSpec
from tests.conftest import LAYERS, WORDS, save_tiny_model
from tests.engine import merged_of
from tests.families.vision_language.test_text_part import IMAGE_ID, save_random
from tests.vision import IMAGE, SIZE, is_of_the_text, read_tensors, save_tiny_llava, write_whole

HEALTH = [HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base and a fine-tune of it; two vision-language models whose text parts are others.

    The second has a token for images first, and rows that are no token's.
    """
    root = tmp_path_factory.mktemp("models")
    base = save_tiny_model(root / "base", 0)
    save_tiny_model(root / "ja", 1, base)
    save_tiny_model(root / "more", 2, words=[*WORDS, "neu1", "neu2"])
    save_tiny_llava(root / "vlm", 3, base, rows=6)
    save_tiny_llava(root / "twin", 4, base, rows=6)
    return root


VALUES = defaultdict(lambda: 0.4, weight=0.6, density=0.7)
# Of any number of source models, or of one.
ANY_SOURCES = sorted(row.name for row in METHODS.values() if row.base != "optional")


def recipe_of(
    root: Path, method: str, base: str, sources: list[str], seed: int = 0, **parts: Any
) -> MergeRecipe:
    row = METHODS[method]
    each, shared = (
        {p.name: p.for_mergekit(VALUES) for p in row.parameters if p.scope == scope}
        for scope in ("source", "shared")
    )
    configuration = {
        "merge_method": method,
        "base_model": str(root / base),
        "models": [{"model": str(root / name), "parameters": dict(each)} for name in sources],
        # The base model is an input of linear, too.
        "parameters": shared or {"weight": 0.3},
        "dtype": "float32",
        **parts,
    }
    return MergeRecipe(configuration=configuration, seed=seed, host=str(root / "vlm"))


def mergekit_on_text_parts(recipe: MergeRecipe, folder: Path) -> dict[str, torch.Tensor]:
    plain = recipe.located(lambda model: str(merged_folder(model)))
    options = MergeOptions(random_seed=recipe.seed, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(plain.configuration), str(folder), options)
    return read_tensors(folder)


def ask(model: Any, processor: Any) -> torch.Tensor:
    """Logits for a picture and a question."""
    picture = Image.linear_gradient("L").convert("RGB").resize((SIZE, SIZE))
    asked = processor(images=picture, text=f"word1 {IMAGE} word2 word3", return_tensors="pt")
    with torch.inference_mode():
        return model(**asked).logits


def ask_candidate(candidate: Candidate) -> torch.Tensor:
    seen = merged_of(candidate)
    return ask(seen.model, seen.processor)


def assert_exported_as_scored(merged: Merged, recipe: Recipe, out: Path) -> tuple[Any, Any]:
    """What is written is what was scored, and plain transformers loads it."""
    assert write_recipe(recipe, out, "cpu") == merged.digest
    model = AutoModelForImageTextToText.from_pretrained(out).eval()
    processor = AutoProcessor.from_pretrained(out)
    assert merged.model.generation_config.to_dict() == model.generation_config.to_dict()
    assert merged.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert model.config.image_token_index == processor.tokenizer.convert_tokens_to_ids(IMAGE)
    return model, processor


@settings(max_examples=8, suppress_health_check=HEALTH)
@given(data=st.data())
def test_text_as_mergekit_merges_it_all_else_untouched(
    home: Path, models: Path, data: st.DataObject
) -> None:
    method = data.draw(st.sampled_from(ANY_SOURCES))
    base, sources = data.draw(
        st.sampled_from([("base", ["vlm", "ja"]), ("vlm", ["ja", "twin"]), ("twin", ["vlm"])])
    )
    sources = sources[: METHODS[method].sources[1]]
    source = data.draw(st.sampled_from(["base", "union"] if base != "base" else ["union"]))
    dtype = data.draw(st.sampled_from(["float32", "bfloat16"]))
    recipe = recipe_of(
        models, method, base, sources, seed=data.draw(st.integers(0, 2**31)),
        tokenizer_source=source, dtype=dtype,
    )  # fmt: skip
    merger = data.draw(st.sampled_from(["resident", "checkpoint"]))
    merged = merged_of(Builder(EvaluationSpec(merger=merger)).build(recipe))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        plain, out = Path(folder) / "plain", Path(folder) / "out"
        out.mkdir()
        model, processor = assert_exported_as_scored(merged, recipe, out)
        tensors, source_tensors = read_tensors(out), read_tensors(models / "vlm")
        for name, tensor in source_tensors.items():
            if not is_of_the_text(name):
                assert tensors[name].dtype == tensor.dtype
                assert torch.equal(tensors[name].view(torch.uint8), tensor.view(torch.uint8))
        merged_text = mergekit_on_text_parts(recipe, plain)
        assert len(tensors) == len(merged_text) + sum(not is_of_the_text(n) for n in source_tensors)
        for name, tensor in merged_text.items():
            assert tensors[f"language_model.{name}"].dtype == tensor.dtype
            assert torch.equal(tensors[f"language_model.{name}"], tensor)
        assert torch.equal(ask(model, processor), ask(merged.model, merged.processor))
        state = merged.model.state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[n], tensor) for n, tensor in model.state_dict().items())


def test_merging_again_is_in_place(home: Path, models: Path) -> None:
    """The second candidate is right, and its text part is no copy."""
    builder = Builder(EvaluationSpec())
    answers: list[tuple[str, torch.Tensor]] = []
    for weight in (0.2, 0.9, 0.2):
        recipe = recipe_of(models, "ties", "base", ["vlm", "ja"], tokenizer_source="union")
        recipe.configuration["models"][0]["parameters"]["weight"] = weight
        merged = merged_of(builder.build(recipe))
        answers.append((merged.digest, ask(merged.model, merged.processor)))
        place = merged.model.model.language_model.layers[0].mlp.up_proj.weight.data_ptr()
        assert (
            place
            == builder._merged._tensors[  # type: ignore[attr-defined]
                "model.layers.0.mlp.up_proj.weight"
            ].data_ptr()
        )
    assert answers[0][0] == answers[2][0] != answers[1][0]
    assert torch.equal(answers[0][1], answers[2][1])
    assert not torch.equal(answers[0][1], answers[1][1])


def test_after_an_error_no_candidate_has_parts_of_another(
    home: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = Builder(EvaluationSpec())
    merge = recipe_of(models, "ties", "base", ["vlm", "ja"], tokenizer_source="union")
    before = ask_candidate(builder.build(merge))
    vlm = str(models / "vlm")
    stack = StackRecipe(embeddings=vlm, steps=(Step(model=vlm, layer=0),), head=vlm, host=vlm)

    def no_memory(*given: Any) -> Any:
        with_text(*given)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("evomerge_optuna.families.vision_language.in_memory.with_text", no_memory)
        with pytest.raises(MemoryError):
            builder.build(stack)
    assert torch.equal(ask_candidate(builder.build(merge)), before)


@pytest.mark.parametrize("vision", [True, False])
def test_written_candidates_are_in_memory_one_at_a_time(
    home: Path, models: Path, monkeypatch: pytest.MonkeyPatch, vision: bool
) -> None:
    recipe = recipe_of(models, "ties", "base", ["vlm", "ja"], tokenizer_source="union")
    recipe = recipe if vision else recipe.without_host()
    builder = Builder(EvaluationSpec(merger="checkpoint"))
    last = weakref.ref(merged_of(builder.build(recipe)).model.lm_head.weight)
    alive = []

    def load(*args: Any) -> Any:
        alive.append(last() is not None)
        return load_model(*args)

    monkeypatch.setattr("evomerge_optuna.merging.checkpoint.load_model", load)
    builder.build(recipe)
    assert alive == [False]


def test_the_same_vocabulary_stays_as_it_is(home: Path, models: Path, tmp_path: Path) -> None:
    """Rows that are no token's, too, and the files of the tokenizer byte by byte."""
    recipe = recipe_of(models, "ties", "twin", ["vlm"])
    merged = merged_of(Builder(EvaluationSpec()).build(recipe))
    out = tmp_path / "out"
    out.mkdir()
    assert_exported_as_scored(merged, recipe, out)
    vlm = models / "vlm"
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json",
                 "chat_template.jinja", "generation_config.json"):  # fmt: skip
        assert (out / name).read_bytes() == (vlm / name).read_bytes()
    assert json.loads((out / "config.json").read_text()) == json.loads(
        (vlm / "config.json").read_text()
    )
    rows = read_tensors(out)["language_model.lm_head.weight"].shape[0]
    assert rows == read_tensors(vlm)["language_model.lm_head.weight"].shape[0] == 20 + 6


def test_a_model_that_is_read_with_a_host_keeps_its_own_tokenizer(home: Path, models: Path) -> None:
    """A study's models are opened once, and others read with the same tokenizer."""
    more, vlm = OpenedModel(str(models / "more")), OpenedModel(str(models / "vlm"))
    own = more.tokenizer.chat_template, more.tokenizer.special_tokens_map
    more.tokenizer.add_tokens([IMAGE])  # else it could not be read with the host
    whole = family_of(vlm).reader_of_whole(vlm, more.config, more.tokenizer)
    assert whole.chat_template == whole.tokenizer.chat_template == vlm.processor.chat_template
    assert (more.tokenizer.chat_template, more.tokenizer.special_tokens_map) == own


def test_a_token_for_images_that_moves(home: Path, models: Path, tmp_path: Path) -> None:
    """Tokens of the text model come first; the configuration says where that for images is."""
    recipe = recipe_of(models, "linear", "more", ["more", "vlm"], tokenizer_source="union")
    merged = merged_of(Builder(EvaluationSpec()).build(recipe))
    out = tmp_path / "out"
    out.mkdir()
    model, processor = assert_exported_as_scored(merged, recipe, out)
    assert model.config.image_token_index == 21 != 19
    assert model.config.text_config.vocab_size == 22
    assert processor.chat_template == AutoProcessor.from_pretrained(models / "vlm").chat_template
    assert torch.equal(ask(model, processor), ask(merged.model, merged.processor))


def test_no_token_for_images(home: Path, models: Path) -> None:
    recipe = recipe_of(models, "ties", "base", ["vlm", "ja"], tokenizer_source="base")
    with pytest.raises(CandidateError, match="the merged tokenizer has no <image>"):
        merged_of(Builder(EvaluationSpec()).build(recipe))


def test_a_stack(home: Path, models: Path, tmp_path: Path) -> None:
    """Deeper than the source, with scales; exported without any."""
    vlm, twin = str(models / "vlm"), str(models / "twin")
    steps = [Step(model=vlm, layer=n) for n in range(LAYERS)]
    steps += [Step(model=twin, layer=1, scale=0.8), Step(model=vlm, layer=3, scale=-1.1)]
    recipe = StackRecipe(embeddings=vlm, steps=tuple(steps), head=twin, host=vlm)
    builder = Builder(EvaluationSpec())
    merged = merged_of(builder.build(recipe))
    out = tmp_path / "out"
    out.mkdir()
    model, processor = assert_exported_as_scored(merged, recipe, out)
    assert model.config.text_config.num_hidden_layers == LAYERS + 2
    scored = ask(merged.model, merged.processor)
    assert torch.allclose(ask(model, processor), scored, rtol=1e-3, atol=1e-4)
    # Another one takes its place, and with no stack it is the source itself.
    plain = recipe.model_copy(update={"steps": tuple(steps[:LAYERS]), "head": vlm})
    merged = merged_of(builder.build(plain))
    source = AutoModelForImageTextToText.from_pretrained(vlm).eval()
    assert torch.equal(ask(merged.model, merged.processor), ask(source, merged.processor))


PICTURES: dict[str, dict[str, Any]] = {
    "gemma3": {"pixel_values": (1, 3, 8, 8)},
    "qwen2_vl": {"pixel_values": (16, 96), "image_grid_thw": [[1, 4, 4]]},
    "qwen2_5_vl": {"pixel_values": (16, 96), "image_grid_thw": [[1, 4, 4]]},
}


@pytest.mark.parametrize("kind", PICTURES)
def test_other_architectures(home: Path, tmp_path: Path, kind: str) -> None:
    """A stack with scales, of decoders that know where an image is: in memory as written."""
    vlm = tmp_path / "vlm"
    save_random(vlm, kind, tied=False)
    steps = tuple(Step(model=str(vlm), layer=n, scale=s) for n, s in ((0, 1.0), (1, 0.9), (1, 1.2)))
    recipe = StackRecipe(embeddings=str(vlm), steps=steps, head=str(vlm))
    text = merged_of(Builder(EvaluationSpec()).build(recipe))
    own = AutoTokenizer.from_pretrained(vlm)
    whole = without_layers(vlm, torch.float32, "cpu")
    content = config_of_whole(vlm, text.model.config, own, text.tokenizer)
    model = with_text(whole, type(whole.config).from_dict(content), text.model)

    write_recipe(recipe, tmp_path / "text", "cpu")
    write_whole(vlm, tmp_path / "text", tmp_path / "out")
    written = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    torch.manual_seed(0)
    shown = {
        name: torch.tensor(value) if isinstance(value, list) else torch.randn(value)
        for name, value in PICTURES[kind].items()
    }
    asked = {
        "input_ids": torch.tensor([[3, 4, *[IMAGE_ID] * 4, 5, 6]]),
        "mm_token_type_ids" if "qwen" in kind else "token_type_ids": torch.tensor(
            [[0, 0, 1, 1, 1, 1, 0, 0]]
        ),
    }
    with torch.inference_mode():
        scored, loaded = model(**asked, **shown).logits, written(**asked, **shown).logits
        other = model(**asked, **{**shown, "pixel_values": -shown["pixel_values"]}).logits
    assert torch.allclose(scored, loaded, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(scored, other, rtol=1e-3, atol=1e-4)


def test_models_that_do_not_fit(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are streamed to each merge, and copied for each stack: the same candidates."""
    vlm, twin = str(models / "vlm"), str(models / "twin")
    merge = recipe_of(models, "dare_ties", "vlm", ["twin"])
    stack = StackRecipe(
        embeddings=vlm,
        steps=(Step(model=vlm, layer=1), Step(model="merged", layer=0, scale=0.8)),
        head=twin,
        host=vlm,
        dtype="bfloat16",
        merges={"merged": merge.model_copy(update={"host": None})},
    )

    def asked(recipe: MergeRecipe | StackRecipe) -> tuple[str, torch.Tensor]:
        merged = merged_of(Builder(EvaluationSpec()).build(recipe))
        return merged.digest, ask(merged.model, merged.processor)

    kept = [asked(recipe) for recipe in (merge, stack)]
    monkeypatch.setattr(Room, "of", lambda *_: Room(Budget(0), Budget(0)))
    for recipe, (digest, logits) in zip((merge, stack), kept, strict=True):
        ours, our_logits = asked(recipe)
        assert ours == digest
        assert torch.equal(our_logits, logits)
