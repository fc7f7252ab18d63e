"""What the resident merger holds in memory is, bit for bit, what `run_merge` writes.

Covers merging.kernels, merging.memory and merging.uniforms, too.
"""

import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mergekit import merge_methods
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file
from transformers import MixtralConfig, MixtralForCausalLM

from evomerge_optuna.errors import CandidateError, NotFiniteError
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.memory import Budget, Room
from evomerge_optuna.merging.plan import located
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from tests.conftest import LAYERS, WORDS, save_family, save_tiny_model

DTYPES = ("float32", "bfloat16", "float16")
FAST = ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base and four fine-tunes of it, with tied and with untied embeddings."""
    root = tmp_path_factory.mktemp("models")
    for kind, tied in (("tied", True), ("untied", False)):
        save_family(root / kind, "abcd", tie_word_embeddings=tied)
    return root


def mergekit_tensors(recipe: MergeRecipe) -> dict[str, torch.Tensor]:
    configuration = MergeConfiguration.model_validate(located(recipe).configuration)
    options = MergeOptions(random_seed=recipe.seed, write_model_card=False, quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        run_merge(configuration, folder, options)
        return load_file(Path(folder) / "model.safetensors")


def merged_tensors(models: ModelInPlace) -> dict[str, torch.Tensor]:
    return models._tensors


def assert_bit_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        # Bytes, for torch.equal takes -0 for 0.
        assert torch.equal(ours[name].view(torch.uint8), tensor.view(torch.uint8)), name


weights = st.one_of(st.just(0.0), st.floats(-2, 2, width=32))
densities = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@st.composite
def recipes(draw: st.DrawFn, root: Path, method: str) -> list[MergeRecipe]:
    """Three recipes of one structure, as the trials of one study are."""
    folder = root / draw(st.sampled_from(["tied", "untied"]))
    names = draw(
        st.sampled_from(["a", "ab", "abc", "abcd"] if method != "linear" else ["ab", "abc"])
    )
    groups = draw(st.sampled_from(["one", "layers", "filters", "gradient"]))
    options = {} if method == "linear" else {"lambda": draw(st.sampled_from([1.0, -0.7]))}
    options |= {"normalize": draw(st.booleans())} if draw(st.booleans()) else {}
    if "ties" in method:
        options |= {"int8_mask": draw(st.booleans())}
    if "dare" in method or "ties" in method:
        options |= {"rescale": draw(st.booleans())}
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 2**31 - 1))
    searched = ["weight", "density"] if ("ties" in method or "dare" in method) else ["weight"]

    def value(parameter: str) -> float:
        return draw(weights if parameter == "weight" else densities)

    def setting(parameter: str) -> Any:
        if groups == "filters":
            return [{"filter": "mlp", "value": value(parameter)}, {"value": value(parameter)}]
        if groups == "gradient":
            return [value(parameter), value(parameter)]
        return value(parameter)

    def source(name: str, **place: Any) -> dict[str, Any]:
        parameters = {p: setting(p) for p in searched if name != "base" or method == "linear"}
        return {"model": str(folder / name), "parameters": parameters, **place}

    def recipe() -> MergeRecipe:
        all_names = ["base", *names]
        if groups == "layers":
            parts: dict[str, Any] = {
                "slices": [
                    {"sources": [source(n, layer_range=[start, start + 2]) for n in all_names]}
                    for start in range(0, LAYERS, 2)
                ]
            }
        else:
            parts = {"models": [source(n) for n in all_names]}
        configuration = {
            "merge_method": method,
            "base_model": str(folder / "base"),
            "dtype": dtype,
            "parameters": options,
            **parts,
        }
        return MergeRecipe(configuration=configuration, seed=seed)

    return [recipe() for _ in range(3)]


@pytest.mark.parametrize("method", FAST)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bit_equal_to_run_merge(models: Path, method: str, data: st.DataObject) -> None:
    merger = ModelInPlace(ResidentMerger("cpu"))
    for recipe in data.draw(recipes(models, method)):
        theirs = mergekit_tensors(recipe)
        try:
            merger.merge(recipe)
        except NotFiniteError:  # normalized by weights that sum to zero, or beyond float16
            assert not all(tensor.isfinite().all() for tensor in theirs.values())
        else:
            assert_bit_equal(merged_tensors(merger), theirs)


def a_recipe(folder: Path, method: str, *names: str, **configuration: Any) -> MergeRecipe:
    parameters: dict[str, Any] = {"weight": 0.6}
    if method not in ("linear", "task_arithmetic"):
        parameters["density"] = 0.5
    models = [{"model": str(folder / n), "parameters": parameters} for n in names]
    content = {"merge_method": method, "models": models}
    if method != "linear":
        content["base_model"] = str(folder / "base")
    return MergeRecipe(configuration=content | configuration, seed=5)


ALL_METHODS = sorted(method.spec.name for method in merge_methods.registered_methods())
NEEDS: dict[str, dict[str, Any]] = {
    "slerp": {"t": 0.3},
    "nearswap": {"t": 0.01},
    "multislerp": {"weight": 0.5},
    "karcher": {},
    "model_stock": {},
    "passthrough": {"scale": 0.5},
    "nuslerp": {"weight": 0.5},
    "della": {"weight": 0.7, "density": 0.5, "epsilon": 0.2},
    "della_linear": {"weight": 0.7, "density": 0.5, "epsilon": 0.2},
}


PLACES: dict[str, Callable[[], Room]] = {
    "are kept between trials": lambda: Room(Budget(2**30), Budget(0)),
    "stay in pinned memory, they are streamed": lambda: Room(Budget(0), Budget(2**30)),
    "in pinned memory, 0.00 GB on disk; they": lambda: Room(Budget(20_000), Budget(20_000)),
}


@pytest.mark.parametrize("method", ALL_METHODS)
def test_every_method_of_mergekit(
    models: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Wherever the models are: on the device, in pinned memory, or parts there and on disk."""
    folder, spec = models / "untied", merge_methods.get(method).spec
    needs = NEEDS.get(method) or {
        parameter.name: 0.5 for parameter in spec.parameters if parameter.required
    }
    names = ["a", "b"]
    if (most := spec.contract.max_inputs or spec.contract.max_non_base) is not None:
        names = names[: 1 if most == 1 or spec.contract.base.value == "required" else most]
    configuration = {
        "merge_method": method,
        "models": [{"model": str(folder / name)} for name in names],
        "parameters": needs,
        "dtype": "float32",
    }
    if spec.contract.base.value in ("required", "optional"):
        configuration["base_model"] = str(folder / "base")
    recipe = MergeRecipe(configuration=configuration, seed=3)
    theirs = mergekit_tensors(recipe)
    for place, room in PLACES.items():
        monkeypatch.setattr(Room, "of", lambda *_, room=room: room())
        merger = ModelInPlace(ResidentMerger("cpu"))
        for _ in range(2):  # the second merge is from memory
            merger.merge(recipe)
            assert_bit_equal(merged_tensors(merger), theirs)
        assert place in merger._merger._resident.summary()  # type: ignore[attr-defined]


@pytest.mark.parametrize("source", ["union", "base"])
@pytest.mark.parametrize("method", ["ties", "dare_ties", "linear"])
def test_vocabularies_matched_by_mergekit(
    models: Path, tmp_path: Path, home: Path, method: str, source: str
) -> None:
    """A source with other tokens: embeddings and head are matched token by token, once."""
    base = models / "untied" / "base"
    words = [*WORDS[:10], "neu1", "neu2", "neu3"]
    save_tiny_model(tmp_path / "x", 7, words=words, tie_word_embeddings=False)
    names = [str(models / "untied" / "a"), str(tmp_path / "x")]
    for weight in (0.4, 0.9):
        parameters = {"weight": weight} | ({} if method == "linear" else {"density": 0.6})
        sources = [{"model": name, "parameters": parameters} for name in names]
        recipe = MergeRecipe(
            configuration={
                "merge_method": method,
                **({} if method == "linear" else {"base_model": str(base)}),
                "models": sources,
                "tokenizer_source": source,
                "dtype": "float32",
            },
            seed=2,
        )
        merger = ModelInPlace(ResidentMerger("cpu"))
        merged = merger.merge(recipe)
        assert_bit_equal(merged_tensors(merger), mergekit_tensors(recipe))
        folder = tmp_path / f"{source}{weight}"
        assert merged.digest == write_recipe(recipe, folder, "cpu")
        model, tokenizer = load_model(folder, "cpu")
        assert merged.tokenizer.get_vocab() == tokenizer.get_vocab()
        assert merged.model.config.vocab_size == model.config.vocab_size


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_the_model_is_the_one_that_would_be_loaded(
    models: Path, tmp_path: Path, kind: str, dtype: str | None
) -> None:
    merger = ModelInPlace(ResidentMerger("cpu"))
    for number, names in enumerate(("ab", "ab")):
        recipe = a_recipe(models / kind, "dare_ties", *names, dtype=dtype)
        recipe = recipe.model_copy(update={"seed": number})
        merged = merger.merge(recipe)
        digest = write_recipe(recipe, tmp_path / str(number), "cpu")
        assert merged.digest == digest
        loaded, tokenizer = load_model(tmp_path / str(number), "cpu")
        state = merged.model.state_dict()
        assert_bit_equal(dict(state), dict(loaded.state_dict()))
        configs = [model.config.to_dict() for model in (merged.model, loaded)]
        for config in configs:
            config.pop("_name_or_path")
        assert configs[0] == configs[1]
        assert merged.model.generation_config.to_dict() == loaded.generation_config.to_dict()
        ids = tokenizer("word1 word2 word3", return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            assert torch.equal(merged.model(ids).logits, loaded(ids).logits)


def test_an_architecture_whose_weights_transformers_converts(tmp_path: Path) -> None:
    """Mixtral's experts are stored one by one, and one tensor in memory."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=19, hidden_size=16, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=2, dtype="float32",
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    for name in ("base", "a", "b"):
        save_tiny_model(tmp_path / name, 0)  # for its tokenizer
        MixtralForCausalLM(config).save_pretrained(tmp_path / name)
    merger = ModelInPlace(ResidentMerger("cpu"))
    for weight in (0.2, 0.9, 0.5):
        recipe = a_recipe(tmp_path, "ties", "a", "b")
        recipe.configuration["models"][0]["parameters"]["weight"] = weight
        merged = merger.merge(recipe)
        folder = tmp_path / str(weight)
        assert merged.digest == write_recipe(recipe, folder, "cpu")
        loaded, _ = load_model(folder, "cpu")
        assert_bit_equal(dict(merged.model.state_dict()), dict(loaded.state_dict()))
        assert merged.model.generation_config.to_dict() == loaded.generation_config.to_dict()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the tensors that are read from disk."""
    from mergekit.io.tasks import LoadTensor

    read: list[str] = []
    execute = LoadTensor.execute

    def noted(task: LoadTensor) -> Any:
        read.append(task.tensor)
        return execute(task)

    monkeypatch.setattr(LoadTensor, "execute", noted)
    yield read


# The models take 176 kB with the merged one; TIES keeps 88 kB of ranks, DARE of uniform numbers.
@pytest.mark.parametrize(
    ("limit", "reads_again", "all_fits"),
    [(1, True, False), (100_000, True, False), (200_000, False, False), (300_000, False, True)],
)
@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_a_memory_limit_costs_time_alone(
    models: Path, calls: list[str], method: str, limit: int, reads_again: bool, all_fits: bool
) -> None:
    said: list[str] = []
    merger = ModelInPlace(ResidentMerger("cpu", limit, said.append))
    for number in (1, 2, 3):
        recipe = a_recipe(models / "untied", method, "a", "b")
        recipe.configuration["models"][0]["parameters"]["weight"] = number / 3
        calls.clear()
        merger.merge(recipe)
        assert bool(calls) == (number == 1 or reads_again)
        assert_bit_equal(merged_tensors(merger), mergekit_tensors(recipe))
    (line,) = said
    assert ("do not fit" in line) != all_fits


def test_nothing_grows_from_merge_to_merge(models: Path) -> None:
    merger = ModelInPlace(ResidentMerger("cpu"))
    process = psutil.Process()

    def merge(number: int) -> None:
        recipe = a_recipe(models / "untied", "dare_ties", "a", "b")
        recipe.configuration["models"][0]["parameters"]["density"] = (number % 90 + 5) / 100
        merger.merge(recipe)

    for number in range(50):
        merge(number)
    gc.collect()
    before = process.memory_info().rss
    for number in range(200):
        merge(number)
    gc.collect()
    assert process.memory_info().rss - before < 4 * 2**20


def test_what_is_kept_is_said_where_it_is_seen(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """mergekit's own output to stderr is kept quiet; this line goes there, too."""
    merger = ModelInPlace(ResidentMerger("cpu", say=lambda line: print(line, file=sys.stderr)))
    merger.merge(a_recipe(models / "tied", "ties", "a", "b"))
    assert "models in memory: " in capsys.readouterr().err


def test_another_structure_replaces_what_is_held(models: Path) -> None:
    merger = ModelInPlace(ResidentMerger("cpu"))
    for method, names in (("ties", "ab"), ("linear", "ab"), ("ties", "abc"), ("ties", "ab")):
        recipe = a_recipe(models / "tied", method, *names)
        merger.merge(recipe)
        assert_bit_equal(merged_tensors(merger), mergekit_tensors(recipe))


def test_a_merge_that_overflows_leaves_the_next_one_sound(models: Path) -> None:
    merger = ModelInPlace(ResidentMerger("cpu"))
    sound = a_recipe(models / "untied", "task_arithmetic", "a", dtype="float16")
    broken = sound.model_copy(deep=True)
    broken.configuration["models"][0]["parameters"]["weight"] = 1e9
    for _ in range(2):
        with pytest.raises(NotFiniteError, match=r"tensor .* has NaN or infinite values"):
            merger.merge(broken)
        merger.merge(sound)
        assert_bit_equal(merged_tensors(merger), mergekit_tensors(sound))


def test_the_callers_random_numbers_are_left_alone(models: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    ModelInPlace(ResidentMerger("cpu")).merge(a_recipe(models / "tied", "dare_ties", "a", "b"))
    assert torch.equal(torch.rand(3), expected)


def test_what_mergekit_refuses_is_the_candidates_fault(models: Path) -> None:
    recipe = a_recipe(models / "tied", "no_such", "a")
    with pytest.raises(CandidateError, match="mergekit cannot build it"):
        ModelInPlace(ResidentMerger("cpu")).merge(recipe)
