"""A host with another text part, as a stream: its tensors, and all else that the host has."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evomerge_optuna.families.vision_language.checkpoint import (
    digest_beside_text,
    digest_of_whole,
)
from evomerge_optuna.families.vision_language.stream import WholeStream
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.recipe_merger import RecipeMerger, write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.digest import digest_files, digest_tensors
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from tests.conftest import save_tiny_model
from tests.vision import FolderStream, read_tensors, save_tiny_llava


@pytest.fixture
def models(tmp_path: Path, home: Path) -> Path:
    base = save_tiny_model(tmp_path / "base", 0)
    save_tiny_llava(tmp_path / "vlm", 1, base)
    save_tiny_llava(tmp_path / "twin", 2, base)
    return tmp_path


def recipes(models: Path) -> list[Recipe]:
    vlm, twin = str(models / "vlm"), str(models / "twin")
    sources = [{"model": name, "parameters": {"weight": 0.4}} for name in (vlm, twin)]
    merge = {"merge_method": "linear", "models": sources, "dtype": "bfloat16"}
    steps = (Step(model=vlm, layer=0), Step(model=twin, layer=2, scale=0.9))
    return [
        MergeRecipe(configuration=merge, seed=0, host=vlm),
        StackRecipe(embeddings=vlm, steps=steps, head=twin, host=vlm),
    ]


@pytest.mark.parametrize("kind", [0, 1], ids=["merge", "stack"])
def test_the_digest_of_the_stream_is_that_of_its_files(models: Path, kind: int) -> None:
    recipe = recipes(models)[kind]
    mergers: list[Callable[[], MergeMerger]] = [
        lambda: ResidentMerger("cpu"),
        lambda: MergekitMerger("cpu"),
    ]
    written = write_recipe(recipe, models / "out", "cpu")
    for make_merger in mergers:
        stream = RecipeMerger("cpu", make_merger).stream(recipe)
        tensors = dict(stream)
        assert stream.digest() == written
        assert digest_tensors(tensors) == digest_files(models / "out")
    assert digest_beside_text(models / "out") == digest_beside_text(models / "vlm")


def test_the_text_part_of_the_host_itself_gives_the_host(models: Path) -> None:
    vlm = models / "vlm"
    whole = read_tensors(vlm)
    text = FolderStream(models / "vlm-text")
    stream = WholeStream(str(vlm), text)
    tensors = dict(stream)
    assert tensors.keys() == whole.keys()
    beside = [name for name in whole if "language_model" not in name]
    assert beside and all(torch.equal(tensors[name], whole[name]) for name in beside)
    assert stream.digest() == digest_of_whole(text.digest(), digest_beside_text(vlm))
