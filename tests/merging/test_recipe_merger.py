"""A recipe's stream is one model, whoever takes it: in memory, in place, on disk.

Covers merging.merge_stream, merging.merged, merging.merger, merging.stack_sources
and models.stream, too.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from evomerge_optuna.errors import NotFiniteError
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.recipe_merger import RecipeMerger, write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.digest import digest_files, digest_tensors
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.stream import write_stream
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from tests.conftest import LAYERS, save_family

MERGERS: dict[str, Callable[[], MergeMerger]] = {
    "resident": lambda: ResidentMerger("cpu"),
    "nothing kept": lambda: ResidentMerger("cpu", memory_limit=1),
    "mergekit": lambda: MergekitMerger("cpu"),
}
SHARED = [HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, a and b, with tied and with untied embeddings."""
    root = tmp_path_factory.mktemp("models")
    for kind, tied in (("tied", True), ("untied", False)):
        save_family(root / kind, "ab", tie_word_embeddings=tied)
    return root


def merge_of(folder: Path, method: str, seed: int = 0, **configuration: Any) -> MergeRecipe:
    sources = [
        {"model": str(folder / n), "parameters": {"weight": 0.6, "density": 0.5}} for n in "ab"
    ]
    content = {"merge_method": method, "base_model": str(folder / "base"), "models": sources}
    return MergeRecipe(configuration=content | configuration, seed=seed)


merges = st.builds(
    lambda kind, method, dtype, out_dtype, seed: (
        kind,
        {"method": method, "dtype": dtype, "out_dtype": out_dtype, "seed": seed},
    ),
    st.sampled_from(["tied", "untied"]),
    st.sampled_from(["task_arithmetic", "ties", "dare_ties", "della_linear"]),
    st.sampled_from(["float32", "bfloat16", None]),
    st.sampled_from(["bfloat16", "float16", None]),
    st.integers(0, 2**31),
)


@settings(max_examples=12, deadline=None, suppress_health_check=SHARED)
@given(drawn=merges)
def test_every_way_of_a_merge_has_one_digest(
    models: Path, drawn: tuple[str, dict[str, Any]]
) -> None:
    kind, options = drawn
    if "della" in options["method"]:
        options["parameters"] = {"epsilon": 0.1}
    recipe = merge_of(models / kind, **options)
    digests = {}
    with TemporaryDirectory() as folder:
        for name, make_merger in MERGERS.items():
            stream = make_merger().stream(recipe)
            tensors = dict(stream)
            digests[name] = stream.digest()
            assert digests[name] == digest_tensors(tensors)
        out = Path(folder) / "out"
        digests["written"] = write_recipe(recipe, out, "cpu")
        digests["files"] = digest_files(out)
        assert load_file(out / "model.safetensors").keys() == tensors.keys()
        digests["in place"] = ModelInPlace(ResidentMerger("cpu")).merge(recipe).digest
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("merger", MERGERS)
def test_a_tensor_is_made_in_the_memory_that_fits(models: Path, merger: str) -> None:
    """And in no other, of which there may be more than there are tensors."""
    gives = MERGERS[merger]()
    recipe = merge_of(models / "untied", "ties")
    expected = dict(gives.stream(recipe))
    first, second, third, *_ = expected
    memory = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
    memory[first] = torch.zeros(3)
    memory[second] = memory[second].double()
    del memory[third]
    memory["not there"] = torch.zeros(3)
    stream = gives.stream(recipe, memory)
    for name, tensor in stream:
        assert torch.equal(tensor, expected[name])
        if merger != "mergekit" and name not in (first, second, third):
            assert tensor is memory[name]
    assert memory["not there"].eq(0).all() and memory[first].eq(0).all()
    assert stream.digest() == digest_tensors(expected)


@pytest.mark.parametrize("method", ["linear", "ties", "della_linear"])
def test_the_memory_may_be_a_models_parameters(models: Path, method: str) -> None:
    gives = ResidentMerger("cpu")
    recipe = merge_of(models / "tied", method, parameters={"epsilon": 0.1, "weight": 0.2})
    expected = dict(gives.stream(recipe))
    memory = {n: torch.nn.Parameter(torch.zeros_like(t)) for n, t in expected.items()}
    for name, tensor in gives.stream(recipe, memory):
        assert tensor is memory[name] and torch.equal(tensor, expected[name])
        assert tensor.is_leaf and tensor.requires_grad


@pytest.mark.parametrize("merger", MERGERS)
@pytest.mark.parametrize("method", ["dare_ties", "della"])
def test_a_receiver_that_draws_random_numbers_changes_nothing(
    models: Path, merger: str, method: str
) -> None:
    gives = MERGERS[merger]()
    recipe = merge_of(models / "tied", method, parameters={"epsilon": 0.1})
    expected = dict(gives.stream(recipe))
    for _ in range(2):
        torch.manual_seed(11)
        undisturbed = [torch.rand(2) for _ in range(len(expected))]
        torch.manual_seed(11)
        for drawn, (name, tensor) in zip(undisturbed, gives.stream(recipe), strict=True):
            assert torch.equal(torch.rand(2), drawn)
            assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("merger", MERGERS)
def test_a_stream_that_is_left_leaves_the_next_one_whole(models: Path, merger: str) -> None:
    gives = MERGERS[merger]()
    recipe = merge_of(models / "tied", "dare_ties")
    for _ in zip(range(3), gives.stream(recipe), strict=False):
        pass
    stream = gives.stream(recipe)
    tensors = dict(stream)
    assert stream.digest() == digest_tensors(tensors) == digest_tensors(dict(gives.stream(recipe)))


@pytest.mark.parametrize("merger", MERGERS)
def test_what_is_not_finite_is_known_at_the_end(models: Path, merger: str) -> None:
    recipe = merge_of(models / "untied", "task_arithmetic", dtype="float16")
    recipe.configuration["models"][0]["parameters"]["weight"] = 1e9
    stream = MERGERS[merger]().stream(recipe)
    assert len(list(stream)) > LAYERS
    with pytest.raises(NotFiniteError, match=r"tensor .* has NaN or infinite values"):
        stream.digest()


def test_structures_tell_whether_a_model_can_be_used_again(models: Path) -> None:
    gives = MERGERS["resident"]()
    one, same = merge_of(models / "tied", "ties"), merge_of(models / "tied", "ties")
    same.configuration["models"][0]["parameters"]["weight"] = 0.1
    other = merge_of(models / "untied", "ties")
    assert gives.stream(one).structure == gives.stream(same).structure
    assert gives.stream(one).structure != gives.stream(other).structure


def stack_of(folder: Path, ends: tuple[str, str], merge: MergeRecipe | None) -> StackRecipe:
    names = {n: str(folder / n) for n in "ab"} | ({"m": "m"} if merge else {})
    path = [("a", 0, 1.0), ("b", 2, 0.7), ("b", 2, -1.1), ("m" if merge else "a", 3, 1.0)]
    steps = tuple(Step(model=names[n], layer=layer, scale=w) for n, layer, w in path)
    first, last = ends
    return StackRecipe(
        embeddings=names[first], steps=steps, head=names[last], merges={"m": merge} if merge else {}
    )


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("ends", ["aa", "ab", "mm", "ma"])
def test_a_stack_comes_folded(models: Path, tmp_path: Path, kind: str, ends: str) -> None:
    """Its digest is that of its recipe and sources; its files hold what the stream gave."""
    merge = merge_of(models / kind, "ties") if "m" in ends else None
    recipe = stack_of(models / kind, (ends[0], ends[1]), merge)
    merger = RecipeMerger("cpu", MERGERS["resident"])
    merger.load(recipe)
    for _ in range(2):
        stream = merger.stream(recipe)
        tensors = dict(stream)
    digest = stream.digest()
    assert write_recipe(recipe, tmp_path / "mergekit", "cpu") == digest
    (tmp_path / "resident").mkdir()
    assert write_stream(merger.stream(recipe), tmp_path / "resident") == digest
    files = [digest_files(tmp_path / name) for name in ("resident", "mergekit")]
    assert files == [digest_tensors(tensors)] * 2
    if merge is not None:
        wider = merge.model_copy(
            update={"configuration": merge.configuration | {"dtype": "float64"}}
        )
        assert merger.stream(recipe.model_copy(update={"merges": {"m": wider}})).structure != (
            stream.structure
        )
    is_tied = kind == "tied" and ends[0] == ends[1]
    assert ("lm_head.weight" in tensors) != is_tied
    model, tokenizer = load_model(tmp_path / "resident", "cpu")
    assert model.config.num_hidden_layers == len(recipe.steps)
    assert tokenizer.get_vocab()
