"""Candidates that are adapters, beside their base model in vLLM, one at a time and several at once.

Covers engines.beside, engines.grouped, engines.installed_vllm, engines.vllm_adapters and
engines.vllm_engine.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from evomerge_optuna.engines import beside, candidate_builder, live
from evomerge_optuna.engines.base import Greedy
from evomerge_optuna.errors import CandidateError, NotFiniteError, SpecError
from evomerge_optuna.models.adapters import ADAPTER_WEIGHTS
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.adapters import save_lora
from tests.conftest import LAYERS
from tests.vllm.test_vllm import PROMPTS, TRANSFORMERS, VLLM, replies, run

pytestmark = pytest.mark.vllm

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGETS = {"x": (4, ["q_proj", "v_proj"]), "y": (6, LINEAR), "z": (3, ["down_proj"])}


@pytest.fixture(scope="module")
def adapters(families: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of the adapters x, y and z of the base model of a family, of differing ranks."""
    root = tmp_path_factory.mktemp("adapters")

    def made(kind: str) -> Path:
        for seed, (name, (rank, modules)) in enumerate(TARGETS.items()):
            if not (root / kind / name).exists():
                save_lora(root / kind / name, families / kind / "base", seed, modules, r=rank)
        return root / kind

    return made


def recipe_of(base: Path, folder: Path, method: str = "cat", **weights: float) -> AdapterRecipe:
    names = {name: f"{base}+{folder / name}" for name in weights}
    values = {names[name]: {"weight": weight} for name, weight in weights.items()}
    return AdapterRecipe(
        base_model=str(base),
        adapters=tuple(names.values()),
        method=method,
        groups=(ModuleGroup(values=values),),
        layers=LAYERS,
        reads_as=str(base),
        seed=0,
    )


@pytest.fixture
def recipes(families: Path, adapters: Callable[[str], Path]) -> list[AdapterRecipe]:
    """Of the untied base model: sums of three adapters, and one of them alone."""
    base, folder = families / "untied" / "base", adapters("untied")
    weights = [(0.5, 1.0, -0.3), (1.0, 0.1, 0.9), (-0.7, 0.8, 0.2)]
    found = [recipe_of(base, folder, x=x, y=y, z=z) for x, y, z in weights]
    return [*found, recipe_of(base, folder, z=1.0)]


@pytest.mark.parametrize("method", ["cat", "svd"])
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_an_adapter_answers_as_in_peft(
    families: Path, adapters: Callable[[str], Path], kind: str, method: str
) -> None:
    """One after the other, each in the place of the last, of larger ranks and smaller ones."""
    base, folder = families / kind / "base", adapters(kind)
    one, other = candidate_builder(VLLM), candidate_builder(TRANSFORMERS)
    seen = []
    for weights in ({"z": 1.0}, {"x": 1.0, "y": -0.5}, {"x": 0.3, "z": 2.0}, {"y": 1.0}):
        recipe = recipe_of(base, folder, method, **weights)
        found, expected = one.build(recipe), other.build(recipe)
        assert found.digest == expected.digest
        texts, numbers = replies(found.engine)
        seen.append(texts)
        assert texts == replies(expected.engine)[0]
        assert numbers == pytest.approx(replies(expected.engine)[1], abs=1e-4)
    assert all(texts != other for n, texts in enumerate(seen) for other in seen[:n])


def test_several_at_once_answer_as_each_alone(recipes: list[AdapterRecipe]) -> None:
    builder = candidate_builder(VLLM.with_candidates(4))
    engines = [builder.build(recipe).engine for recipe in recipes]
    alone = [replies(engine) for engine in engines]
    joined = builder.join(engines)
    passes = 0

    def count() -> None:
        nonlocal passes
        passes += 1

    how = Greedy(12, stop=["word9"])
    with joined.counting(count):
        texts = joined.generate(PROMPTS * 4, how)
    assert passes <= 13  # of all four together
    assert texts == list(chain.from_iterable(found for found, _ in alone))
    sums = joined.negative_log_likelihoods(PROMPTS * 4)
    expected = [n for _, numbers in alone for n in numbers[-len(PROMPTS) :]]
    assert [total for total, _ in sums] == pytest.approx(expected, abs=1e-4)
    pair = (PROMPTS[5], " word1 word2")
    assert joined.log_likelihoods([pair] * 4) == pytest.approx(
        [engine.log_likelihoods([pair])[0] for engine in engines], abs=1e-4
    )


def test_prompts_that_are_no_likelihoods_keep_their_adapters(recipes: list[AdapterRecipe]) -> None:
    """A text of which all is given, or that has one token, is not asked; its neighbours are."""
    builder = candidate_builder(VLLM.with_candidates(4))
    engines = [builder.build(recipe).engine for recipe in recipes[:2]]
    texts = ["word1", "word1 word2 word3"]
    alone = [one for engine in engines for one in engine.negative_log_likelihoods(texts)]
    found = builder.join(engines).negative_log_likelihoods(texts * 2)
    assert [n for _, n in found] == [0, 2, 0, 2]
    assert [t for t, _ in found] == pytest.approx([t for t, _ in alone], abs=1e-4)
    assert found[1][0] != pytest.approx(found[3][0], abs=1e-2)


def test_a_new_adapter_is_not_the_one_whose_place_it_takes(
    recipes: list[AdapterRecipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM keeps the adapter that had a number first, and a prompt's keys by its adapter's name."""
    builder = candidate_builder(VLLM)
    expected = [replies(builder.build(recipe).engine) for recipe in recipes[:2]]
    assert expected[0] != expected[1]
    first = builder.build(recipes[0]).engine
    assert replies(builder.build(recipes[1]).engine) == expected[1]
    with pytest.raises(RuntimeError, match="another model has taken"):
        replies(first)
    # So that the test can fail: with a number that another has.
    two = candidate_builder(VLLM.with_candidates(2))
    monkeypatch.setattr(beside, "_number", repeat(999))
    two.build(recipes[0])
    assert replies(two.build(recipes[1]).engine)[0] != expected[1][0]
    live.close()


def test_of_several_the_oldest_goes(recipes: list[AdapterRecipe]) -> None:
    builder = candidate_builder(VLLM.with_candidates(3))
    first, second, third = (builder.build(recipe).engine for recipe in recipes[:3])
    expected = replies(second)
    replies(first)  # so that the second is the one that was used the longest time ago
    replies(third)
    builder.build(recipes[3])
    assert replies(second) == expected
    with pytest.raises(RuntimeError, match="another model has taken"):
        replies(first)


def test_candidates_are_not_joined_over_a_new_start(recipes: list[AdapterRecipe]) -> None:
    builder = candidate_builder(VLLM.with_candidates(2))
    larger = recipes[0].model_copy(update={"method": "svd", "max_rank": 64})
    engines = [builder.build(recipe).engine for recipe in (recipes[0], larger)]
    with pytest.raises(CandidateError, match="started anew for one with a larger rank"):
        builder.join(engines)


def test_an_adapter_that_is_not_finite_fails_alone(
    recipes: list[AdapterRecipe], families: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base, good = families / "untied" / "base", recipes[0]
    builder = candidate_builder(VLLM.with_candidates(2))
    expected = replies(builder.build(good).engine)
    for name, value in {"nan": float("nan"), "wild": 1e25}.items():
        save_lora(tmp_path / name, base, 0, ["v_proj"], r=2)
        file = tmp_path / name / ADAPTER_WEIGHTS
        tensors = {n: torch.full_like(t, value) for n, t in load_file(file).items()}
        save_file(tensors, file)
    with pytest.raises(NotFiniteError, match="v_proj"):
        builder.build(recipe_of(base, tmp_path, nan=1.0))
    # Finite weights whose keys and values are not: in one batch others may read what they left.
    wild = builder.build(recipe_of(base, tmp_path, wild=1.0)).engine
    engine = builder.build(good).engine
    with pytest.raises(CandidateError, match="a candidate computes NaN or infinities"):
        builder.join([wild, engine]).generate(PROMPTS * 2, Greedy(12))
    assert replies(builder.build(good).engine) == expected


def test_a_rank_that_vllm_does_not_take_is_refused(families: Path) -> None:
    with pytest.raises(SpecError, match=r"rank 513, and vllm takes 512 at most; write merge: "):
        beside.AdapterRoom(1, 513, ()).prepare()


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_an_adapter_of_the_head_or_the_embeddings_is_refused(
    families: Path, tmp_path: Path, module: str
) -> None:
    base = families / "untied" / "base"
    save_lora(tmp_path / "own", base, 0, ["q_proj", module])
    with pytest.raises(SpecError, match=f"an adapter changes .*{module}, and vllm is given"):
        candidate_builder(VLLM).load(recipe_of(base, tmp_path, own=1.0))


def test_groups_compute_what_vllm_computes() -> None:
    """Rows of several adapters, and of none; several slices of the outputs."""
    from vllm.lora.layers import LoRAMapping
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from evomerge_optuna.engines.grouped import GroupedAdapters

    torch.manual_seed(0)
    a = tuple(torch.randn(3, 1, 4, 8) for _ in range(2))
    b = tuple(torch.randn(3, 1, width, 4) for width in (6, 5))
    for ids in ((7, 7, 9, 8, 7), (8, 8, 8, 8, 8), (9, 7, 7, 8, 8)):
        x, found = torch.randn(5, 8), []
        for kind in (PunicaWrapperCPU, GroupedAdapters):
            wrapper = kind(16, 8, torch.device("cpu"))
            mapping = LoRAMapping(ids, ids, is_prefill=True)
            wrapper.update_metadata(mapping, [7, 8, 9], 4, 32)
            y = torch.ones(5, 11)
            wrapper.add_lora_linear(y, x, a, b, 1.0, (6, 5))
            found.append(y)
        assert torch.allclose(*found, atol=1e-5)
    # Those without one, to which vLLM adds the last adapter.
    wrapper = GroupedAdapters(16, 8, torch.device("cpu"))
    wrapper.update_metadata(LoRAMapping((0, 7), (0, 7), is_prefill=True), [7, 8, 9], 4, 32)
    y = torch.ones(2, 11)
    wrapper.add_lora_linear(y, torch.randn(2, 8), a, b, 1.0, (6, 5))
    assert torch.equal(y[0], torch.ones(11)) and not torch.equal(y[1], torch.ones(11))


@pytest.fixture
def content(content: dict[str, Any], adapters: Callable[[str], Path]) -> dict[str, Any]:
    """The study of the words, over adapters; a generation is asked at once."""
    folder = adapters("untied")
    return {
        **content,
        "study": "adapters",
        "models": {name: str(folder / name) for name in "xy"},
        "merge": {"space": "adapter", "method": "cat", "weight": [0, 2]},
        "sampler": {"name": "cmaes", "seed": 1, "population": 4},
        "starts": False,
        "trials": 9,
    }


def outcome(study: MergeStudy) -> list[Any]:
    trials = sorted(study.trials(), key=study.read().position)
    return [(t.params, result_of(t).sha256, result_of(t).measures) for t in trials]


def test_a_study_asks_a_generation_at_once(
    content: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has the trials that it has with one candidate after the other, and in transformers."""
    joined = list[int]()
    from evomerge_optuna.engines.vllm import Builder

    join = Builder.join

    def counted(self: Builder, engines: Any) -> Any:
        joined.append(len(engines))
        return join(self, engines)

    monkeypatch.setattr(Builder, "join", counted)
    at_once = run(content)
    assert joined == [4, 4] and at_once.trials()[-1].state is TrialState.COMPLETE
    single = run(
        {**content, "study": "single", "evaluation": {**content["evaluation"], "candidates": 1}}
    )
    usual = run({**content, "study": "usual", "evaluation": {"device": "cpu"}})
    for other in (single, usual):
        for found, expected in zip(outcome(at_once), outcome(other), strict=True):
            assert found[:2] == expected[:2]
            assert found[2] == pytest.approx(expected[2], rel=1e-5)


def test_a_study_that_is_killed_amid_a_batch_goes_on_as_if_it_had_not_been(
    content: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/killed.db"
    spec = parse_spec({**content, "study": "killed"})
    (tmp_path / "killed.yaml").write_text(spec.to_yaml())
    command = [sys.executable, "-m", "evomerge_optuna", "study", "run", tmp_path / "killed.yaml"]
    process = subprocess.Popen([*command, "--storage", url])
    while process.poll() is None and trials(url, TrialState.RUNNING) < 4:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert trials(url, TrialState.RUNNING) == 4
    study = open_study(open_store(url), "killed")
    run_trials(study, 9)
    whole = run({**content, "study": "whole"})
    assert len(study.read().everything) == 13
    for found, expected in zip(outcome(study), outcome(whole), strict=True):
        assert found[:2] == expected[:2]
        assert found[2] == pytest.approx(expected[2], rel=1e-5)


def trials(url: str, state: TrialState) -> int:
    try:
        return len(open_study(open_store(url), "killed").read().of(state))
    except Exception:  # it is not created yet
        return 0
