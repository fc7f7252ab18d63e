"""Studies whose candidates are put into vLLM.

Covers engines.live and engines.vllm.
"""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge_optuna.engines import candidate_builder, live, load_engine
from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.errors import NotFiniteError, SpecError
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.models.shards import read_tensors, write_tensors
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.report.export import export
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import EvaluationSpec, StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import LAYERS, WORDS
from tests.scripted import save_scripted_model
from tests.vllm.conftest import ENGINE

pytestmark = pytest.mark.vllm

PROMPTS = [" ".join(WORDS[n % 5 : 1 + n]) for n in range(9)]
TRANSFORMERS = EvaluationSpec(device="cpu")
VLLM = EvaluationSpec(device="cpu", **ENGINE)


def replies(engine: TextEngine) -> tuple[list[object], list[float]]:
    """Its greedy texts, and its log-probabilities."""
    texts = engine.generate(PROMPTS, Greedy(12, stop=["word9"]))
    pairs = [(prompt, f" {WORDS[n]} {WORDS[2 * n % 7]}") for n, prompt in enumerate(PROMPTS)]
    sums = [total for total, _ in engine.negative_log_likelihoods(PROMPTS)]
    return list(texts), engine.log_likelihoods(pairs) + sums


def recipes(folder: Path, count: int) -> list[MergeRecipe]:
    """Random recipes of the models in a folder."""
    spec = parse_spec(
        {
            "study": "any",
            "stage": "ps",
            "base_model": str(folder / "base"),
            "models": {name: str(folder / name) for name in "ab"},
            "merge": {"method": "dare_ties", "weight": [0, 2], "density": [0.2, 1]},
            "tasks": {"t": {"type": "perplexity", "data": {"search": {"path": "none"}}}},
            "objectives": [{"minimize": "t.perplexity"}],
        }
    )
    space = make_space(spec, dict.fromkeys(spec.model_ids(), LAYERS))
    draw = random.Random(folder.name)
    ranges = space.ranges()
    found = [
        space.recipe({name: draw.uniform(r.low, r.high) for name, r in ranges.items()})
        for _ in range(count)
    ]
    assert len({recipe.digest() for recipe in found}) == count
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_each_candidate_answers_as_in_transformers(families: Path, kind: str) -> None:
    builders = candidate_builder(VLLM), candidate_builder(TRANSFORMERS)
    for recipe in recipes(families / kind, 20):
        one, other = (builder.build(recipe) for builder in builders)
        assert one.digest == other.digest
        assert one.engine.costs() == other.engine.costs()
        texts, numbers = replies(one.engine)
        expected, likelihoods = replies(other.engine)
        assert texts == expected
        assert numbers == pytest.approx(likelihoods, abs=1e-4)


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_candidate_answers_as_its_export_in_a_fresh_engine(
    families: Path, kind: str, tmp_path: Path
) -> None:
    builder = candidate_builder(VLLM)
    found = []
    for number, recipe in enumerate(recipes(families / kind, 3)):
        candidate = builder.build(recipe)
        engine, encode = candidate.engine, candidate.engine.reader.encode
        texts = engine.generate(PROMPTS, Greedy(12))
        found.append((texts, engine.negative_log_likelihoods(PROMPTS)))
        assert write_recipe(recipe, tmp_path / str(number), "cpu") == candidate.digest
    ids = [encode(prompt) for prompt in PROMPTS]
    tokenizer = engine.reader.tokenizer
    for number, (texts, sums) in enumerate(found):
        live.close()
        outputs = outputs_of_vllm(tmp_path / str(number), ids)
        assert texts == [
            tokenizer.decode(o.outputs[0].token_ids, skip_special_tokens=True) for o in outputs
        ]
        for tokens, (total, _), output in zip(ids, sums, outputs, strict=True):
            own = [p[t].logprob for t, p in zip(tokens, output.prompt_logprobs, strict=True) if p]
            assert -total == pytest.approx(sum(own), abs=1e-5)


def outputs_of_vllm(folder: Path, prompts: list[list[int]]) -> list[Any]:
    """What vLLM alone makes of a checkpoint and these prompts."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        kv_cache_memory_bytes=2**26,
    )
    params = SamplingParams(
        temperature=0, max_tokens=12, prompt_logprobs=0, stop_token_ids=[1], detokenize=False
    )
    found = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False)
    llm.llm_engine.engine_core.shutdown()
    return list(found)


def test_trials_score_as_with_transformers(content: dict[str, Any], home: Path) -> None:
    studies = {}
    for engine in ("vllm", "transformers"):
        evaluation = content["evaluation"] if engine == "vllm" else {"device": "cpu"}
        studies[engine] = run({**content, "study": engine, "evaluation": evaluation})
    pairs = list(zip(*(study.trials() for study in studies.values()), strict=True))
    assert len(pairs) == 8
    for one, other in pairs:
        found, expected = result_of(one), result_of(other)
        assert one.params == other.params
        assert (found.sha256, found.costs) == (expected.sha256, expected.costs)
        assert found.measures == pytest.approx(expected.measures, rel=1e-6)


def run(content: dict[str, Any]) -> MergeStudy:
    study = create_study(open_store(), parse_spec(content))
    run_trials(study, study.spec.trials)
    return study


def test_final_scores_and_an_export(spec: StudySpec, home: Path, tmp_path: Path) -> None:
    study = create_study(open_store(), spec)
    run_trials(study, 4)
    best = find_trial(study, "best")
    rows = {row.name: row.scores["test"] for row in FinalScorer(study).final_scores(best)}
    folder = tmp_path / "export"
    export(study, best, folder)
    usual = parse_spec({**spec.model_dump(mode="json", by_alias=True), "evaluation": {}})
    for scored in (score_checkpoint(str(folder), s, "test").scores for s in (spec, usual)):
        for metric, score in scored.items():
            assert any(
                scores[metric].value == pytest.approx(score.value, rel=1e-5)
                for scores in rows.values()
            )


def test_a_candidate_that_is_not_finite_fails_alone(families: Path, tmp_path: Path) -> None:
    (good,) = recipes(families / "untied", 1)
    builder = candidate_builder(VLLM)
    expected = replies(builder.build(good).engine)
    tensors = dict(read_tensors(families / "untied" / "a"))
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][0, 0] = float("nan")
    bad = model_of(tensors, families / "untied" / "a", tmp_path / "bad")
    with pytest.raises(NotFiniteError, match="up_proj"):
        builder.build(bad)
    assert replies(builder.build(good).engine) == expected
    # Finite weights whose keys and values are not: what is left of them in the cache is not read.
    tensors = {
        name: torch.full_like(t, 3e38) if "v_proj" in name else t
        for name, t in read_tensors(families / "untied" / "a")
    }
    wild = model_of(tensors, families / "untied" / "a", tmp_path / "wild")
    engine = builder.build(wild).engine
    engine.generate(PROMPTS * 8, Greedy(12))
    assert replies(builder.build(good).engine) == expected


def model_of(tensors: dict[str, torch.Tensor], like: Path, folder: Path) -> MergeRecipe:
    """The recipe of a single model that has these tensors."""
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    write_tensors(folder, tensors.items())
    models = [{"model": str(folder), "parameters": {"weight": 1.0}}]
    return MergeRecipe(configuration={"merge_method": "linear", "models": models}, seed=0)


def test_an_engine_that_fails_is_started_anew(
    families: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = recipes(families / "tied", 2)
    builder = candidate_builder(VLLM)
    expected = replies(builder.build(second).engine)
    engine = builder.build(first).engine

    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError), engine.counting(out_of_memory):
        engine.generate(PROMPTS, Greedy(4))
    with pytest.raises(RuntimeError, match="vLLM has failed"):
        engine.generate(PROMPTS, Greedy(4))
    assert replies(builder.build(second).engine) == expected


def test_the_last_candidate_is_not_asked_by_mistake(families: Path) -> None:
    first, second = recipes(families / "tied", 2)
    builder = candidate_builder(VLLM)
    engine = builder.build(first).engine
    builder.build(second)
    with pytest.raises(RuntimeError, match="another model has taken"):
        engine.generate(PROMPTS, Greedy(4))


def test_vllm_takes_the_number_of_a_device(families: Path) -> None:
    """As `evaluation.device` gives it; see tests/engines/test_spread.py."""
    from vllm.engine.arg_utils import EngineArgs

    model = str(families / "tied" / "base")
    args = EngineArgs(model=model, skip_tokenizer_init=True, device_ids=[2])
    assert args.create_engine_config().parallel_config.assigned_physical_gpu_ids == [2]


def test_what_vllm_does_not_know_is_refused_at_creation(
    content: dict[str, Any], home: Path
) -> None:
    content["evaluation"]["engine_args"] = {"no_such_argument": 1}
    with pytest.raises(SpecError, match=r"engine_args: vLLM .* has no argument no_such_argument"):
        create_study(open_store(), parse_spec(content))


def test_a_text_may_have_all_positions_that_the_model_has(families: Path) -> None:
    (recipe,) = recipes(families / "untied", 1)
    whole = " ".join(WORDS * 8)  # 128 tokens
    one, other = (candidate_builder(s).build(recipe).engine for s in (VLLM, TRANSFORMERS))
    ((total, tokens),) = one.negative_log_likelihoods([whole])
    assert tokens == 127
    assert total == pytest.approx(other.negative_log_likelihoods([whole])[0][0], rel=1e-5)
    with pytest.raises(SpecError, match="has 129 tokens"):
        one.negative_log_likelihoods([f"{whole} word0"])
    cut = one.negative_log_likelihoods([f"{whole} word0"], too_long="cut")
    assert cut == [(pytest.approx(cut[0][0]), 127)]


def test_answers_end_and_thinking_is_left_out_as_in_transformers(tmp_path: Path) -> None:
    """Token by token, since ends may be strings of several tokens or depend on what was thought."""
    script = "assistant <think> maybe 3 STOP or 4 </think> it is 5 </s>"
    added = {"<think>": False, "</think>": False}
    words = [f"more{number}" for number in range(45)]  # until heads are wide enough
    folder = save_scripted_model(tmp_path / "m", script, words=words, added=added)
    one, other = (load_engine(folder, spec) for spec in (VLLM, TRANSFORMERS))
    for how in (
        Greedy(20),
        Greedy(4),
        Greedy(20, stop=["STOP", "3", "</think>"]),
        Greedy(20, stop=["is"]),
        Greedy(20, thinking="maybe"),
    ):
        prompts = ["assistant", "assistant", "assistant"]
        assert one.generate(prompts, how) == other.generate(prompts, how)
    assert one.generate(["assistant"], Greedy(20, stop=["STOP"])) == ["it is 5"]
