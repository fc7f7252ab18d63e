"""Studies that search in the space of adapters, from creation to what is exported.

Covers spec.adapter_merge, spaces.adapter, families.adapters, merging.adapters.placed and
report.export_adapter.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import ExportError, SpecError, UsageError
from evomerge_optuna.methods import ADAPTER_METHODS
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.report import asking
from evomerge_optuna.report.dashboard import study_figures
from evomerge_optuna.report.export import export
from evomerge_optuna.report.notes import study_note
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import EvaluationSpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, open_study, recipe_of
from evomerge_optuna.study.unchanged import check_unchanged
from tests.adapters import save_base, save_lora
from tests.conftest import save_tiny_model
from tests.vision import save_tiny_llava

Content = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def adapters(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters x and y of the tiny base model, z of another rank."""
    root = tmp_path_factory.mktemp("adapters")
    modules = ["q_proj", "v_proj", "down_proj"]
    for seed, name in enumerate("xy"):
        save_lora(root / name, tiny / "base", seed, modules[seed:])
    save_lora(root / "z", tiny / "base", 2, modules, r=2)
    return root


def a_spec(content: Content, root: Path, merge: dict[str, Any], **parts: Any) -> dict[str, Any]:
    models = {name: str(root / name) for name in "xy"}
    return content(**{"models": models, "merge": {"space": "adapter"} | merge, **parts})


def a_study(content: dict[str, Any], **given: Any) -> MergeStudy:
    return create_study(open_store(), parse_spec(content), **given)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(torch.arange(12)[None]).logits
    return found


def test_a_study_from_creation_to_both_exports(
    adapters: Path, spec_content: Content, tiny: Path, home: Path, tmp_path: Path
) -> None:
    merge = {"method": ["dare_linear", "cat"], "layer_group_size": 2, "max_rank": 5}
    said: list[str] = []
    content = a_spec(spec_content, adapters, merge, sampler={"name": "tpe", "seed": 1})
    study = a_study(content | {"starts": True, "trials": 12}, say=said.append)
    assert any("parameters to search" in line for line in said)
    run_trials(study, 6)
    assert not list((home / "models").glob("adapter-*"))  # nothing was merged on disk
    resumed = open_study(open_store(), study.name)
    check_unchanged(resumed, said.append)
    run_trials(resumed, 8)
    trials = resumed.ranked()
    assert len({result_of(trial).sha256 for trial in trials}) >= 7
    assert study_figures(resumed).keys() >= {"weights", "spread"}
    assert "space: adapter" in study_note(resumed)

    rows = FinalScorer(resumed).final_scores(trials[0])
    names = [row.name for row in rows]
    assert names == ["x", "y", "uniform merge", f"trial {trials[0].number}"]

    def perplexity(model: Any) -> float:
        texts = [json.loads(line)["text"] for line in (tiny / "test.jsonl").open()]
        tokenizer = AutoTokenizer.from_pretrained(tiny / "base")
        total, count = 0.0, 0
        for text in texts:
            ids = tokenizer(text, return_tensors="pt").input_ids
            with torch.inference_mode():
                loss = model(ids, labels=ids).loss
            total, count = total + float(loss) * (ids.shape[1] - 1), count + ids.shape[1] - 1
        return float(torch.tensor(total / count).exp())

    source = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny / "base"), adapters / "x"
    )
    by_name = {row.name: row.scores["test"]["words.perplexity"].value for row in rows}
    assert by_name["x"] == pytest.approx(perplexity(source), rel=1e-5)

    out, said = tmp_path / "adapter", []
    assert export(resumed, trials[0], out, said.append) == result_of(trials[0]).sha256
    assert said[0].startswith("checked: plain peft loads it on its base model; tensors, logits")
    assert said[1].startswith("the adapter has rank ")
    tensors = load_file(out / "adapter_model.safetensors")
    assert digest_tensors(tensors) == result_of(trials[0]).sha256
    settings = json.loads((out / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == next(iter(tensors.values())).shape[0]
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny / "base"), out)
    assert by_name[names[-1]] == pytest.approx(perplexity(found), rel=1e-5)
    card = (out / "README.md").read_text()
    assert "base_model_relation: adapter" in card and "library_name: peft" in card
    assert str(adapters) not in card and "add_weighted_adapter" in card

    whole = tmp_path / "whole"
    assert export(resumed, trials[0], whole, said.append, merged=True) == digest_tensors(tensors)
    assert said[-2].endswith("because the adapter is rounded into the weights")
    merged = AutoModelForCausalLM.from_pretrained(whole)
    torch.testing.assert_close(logits(merged), logits(found), rtol=1e-4, atol=1e-4)
    assert "base_model_relation: merge" in (whole / "README.md").read_text()


def test_whole_models_are_not_merged_into_a_base(
    make_spec: Any, home: Path, tmp_path: Path
) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 1)
    (trial,) = study.ranked()
    with pytest.raises(UsageError, match="is a whole model; leave --merged out"):
        export(study, trial, tmp_path / "out", merged=True)


@pytest.mark.parametrize("method", ADAPTER_METHODS)
def test_every_method_is_searched(
    method: str, adapters: Path, spec_content: Content, home: Path
) -> None:
    study = a_study(a_spec(spec_content, adapters, {"method": method, "interpolate": 2}))
    run_trials(study, 2)
    assert [trial.state.name for trial in study.trials()[:2]] == ["COMPLETE", "COMPLETE"]
    assert all(isinstance(recipe_of(trial), AdapterRecipe) for trial in study.trials()[:2])


def test_a_candidate_is_what_peft_makes_of_the_files(
    adapters: Path, spec_content: Content, tiny: Path, home: Path
) -> None:
    """Whatever candidate was in place before, of another rank or with more modules."""
    spec = parse_spec(a_spec(spec_content, adapters, {"method": "cat"}))
    study = create_study(open_store(), spec)
    builder = Builder(EvaluationSpec(device="cpu"))
    plain = logits(AutoModelForCausalLM.from_pretrained(tiny / "base"))
    for name in ("x", None, "y", "x"):
        recipe = study.space.alone(name) if name else study.space.recipe(study.space.baseline())
        assert recipe is not None
        model = builder.build(recipe).engine.raw("test").model  # type: ignore[attr-defined]
        if name is None:
            assert not torch.equal(logits(model), plain)
            continue
        base = AutoModelForCausalLM.from_pretrained(tiny / "base")
        wanted = logits(PeftModel.from_pretrained(base, adapters / name))
        torch.testing.assert_close(logits(model), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "modules", "dtype"),
    [("gpt2", ["c_attn", "wte"], None), ("llama", ["q_proj", "lm_head"], "bfloat16")],
)
def test_embeddings_and_heads_are_exported_too(
    kind: str,
    modules: list[str],
    dtype: str | None,
    spec_content: Content,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of tied embeddings, one end of which an adapter changes; in the dtype of the evaluation."""
    base = save_base(tmp_path / "base", kind)
    for seed, name in enumerate("xy"):
        save_lora(tmp_path / name, base, seed, modules)
    content = a_spec(spec_content, tmp_path, {"method": "cat", "layer_groups": [modules[0]]})
    content |= {"base_model": str(base)} | ({"evaluation": {"dtype": dtype}} if dtype else {})
    study = a_study(content)
    run_trials(study, 2)
    (best, *_) = study.ranked()
    said: list[str] = []
    digest = export(study, best, tmp_path / "adapter", said.append)
    assert digest == result_of(best).sha256
    export(study, best, tmp_path / "whole", said.append, merged=True)
    with monkeypatch.context() as patch:  # as if the rounding of the weights were too much
        patch.setattr(asking, "_MOST", -1.0)
        with pytest.raises(ExportError, match=r"logits differ by .*; nothing .*leave --merged out"):
            export(study, best, tmp_path / "no", said.append, merged=True)
    assert not (tmp_path / "no").exists()
    model = AutoModelForCausalLM.from_pretrained(base)
    wanted = logits(PeftModel.from_pretrained(model, tmp_path / "adapter"))
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "whole"))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_a_tokenizer_beside_the_first_adapter_is_read_with_and_exported(
    spec_content: Content, tiny: Path, home: Path, tmp_path: Path
) -> None:
    for seed, name in enumerate("xy"):
        save_lora(tmp_path / name, tiny / "base", seed, ["q_proj"])
    tokenizer = AutoTokenizer.from_pretrained(tiny / "base")
    tokenizer.chat_template = "{{ messages[0]['content'] }} word1"
    tokenizer.save_pretrained(tmp_path / "x")
    study = a_study(a_spec(spec_content, tmp_path, {"method": "linear"}))
    run_trials(study, 1)
    said: list[str] = []
    export(study, study.ranked()[0], tmp_path / "out", said.append)
    assert "tokens, chat template" in said[0]
    found = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert found.chat_template == tokenizer.chat_template


def test_a_warm_start_from_another_study_of_the_same_adapters(
    adapters: Path, spec_content: Content, home: Path
) -> None:
    first = a_study(a_spec(spec_content, adapters, {"method": "linear"}))
    run_trials(first, 3)
    parts = {"study": "second", "warm_start": [first.name]}
    second = a_study(
        a_spec(
            spec_content, adapters, {"method": ["linear", "ties"]}, **parts, sampler={"name": "tpe"}
        )
    )
    names = [trial.user_attrs.get("baseline") for trial in second.study.trials]
    assert names == ["uniform merge", f"best of {first.name}"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"models": {"x": "X", "z": "Z"}},
            r"models.z: has rank 2 in model.layers.0.*, but models.x has 4, "
            r"and linear adds A to A and B to B; write method: cat or method: svd",
        ),
        ({"models": {"x": "BASE"}}, "has no adapter_config.json, so it is no adapter"),
        ({"merge": {"layer_groups": ["mlp", "norm"]}}, "no tensor's name contains 'norm'"),
        ({"merge": {"layer_group_size": 9}}, "9 is more than the models' 4 layers"),
        ({"evaluation": {"engine": "diffusers"}}, "evaluation.engine"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    change: dict[str, Any],
    words: str,
    adapters: Path,
    spec_content: Content,
    tiny: Path,
    home: Path,
) -> None:
    places = {"X": str(adapters / "x"), "Z": str(adapters / "z"), "BASE": str(tiny / "base")}
    models = change.get("models", {name: name.upper() for name in "x"})
    named = {alias: places[place] for alias, place in models.items()}
    content = a_spec(spec_content, adapters, {"method": "linear"} | change.get("merge", {}))
    content |= {"models": named, **{k: v for k, v in change.items() if k == "evaluation"}}
    with pytest.raises(SpecError, match=words):
        a_study(content)


def test_an_adapter_that_added_tokens_is_refused(
    adapters: Path, spec_content: Content, tiny: Path, home: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "base")
    model.resize_token_embeddings(model.config.vocab_size + 4)
    config = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "x", save_embedding_layers=True)
    content = a_spec(spec_content, adapters, {"method": "cat"})
    content |= {"models": {"x": str(tmp_path / "x"), "y": str(adapters / "y")}}
    with pytest.raises(SpecError, match=r"models.x: vocabulary of .*; leave merge.space out, and"):
        a_study(content)


def test_a_vision_language_base_is_refused(
    adapters: Path, spec_content: Content, tiny: Path, home: Path, tmp_path: Path
) -> None:
    vlm = save_tiny_llava(tmp_path / "vlm", 5, tiny / "base", rows=3)
    content = a_spec(spec_content, adapters, {"method": "linear"}, base_model=str(vlm))
    words = "merge.space: base_model is a vision-language model, and adapters are merged for"
    with pytest.raises(SpecError, match=words):
        a_study(content)


def test_an_adapter_of_another_base_is_refused_or_told(
    adapters: Path, spec_content: Content, tiny: Path, home: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    save_lora(other, tiny / "base", 5, ["q_proj"])
    config = json.loads((other / "adapter_config.json").read_text())
    file = other / "adapter_config.json"

    def told(trained_on: str, study: str) -> list[str]:
        file.write_text(json.dumps(config | {"base_model_name_or_path": trained_on}))
        said: list[str] = []
        content = a_spec(spec_content, adapters, {"method": "linear"}, study=study)
        a_study(content | {"models": {"o": str(other)}}, say=said.append)
        return [line for line in said if "was trained on" in line]

    assert told("elsewhere/Base", "same") == []
    wide = save_tiny_model(tmp_path / "wide", 0, hidden_size=32)
    save_lora(tmp_path / "of-wide", wide, 0, ["q_proj"])
    models = {"o": str(tmp_path / "of-wide")}
    content = a_spec(spec_content, adapters, {"method": "linear"}, study="wide")
    with pytest.raises(SpecError, match=r"models.o: .* has shape \[4, 32\], but this base model"):
        a_study(content | {"models": models})
    (line,) = told("o/another", "another")
    assert line.startswith("models.o was trained on o/another; base_model ")
    assert line.endswith("is right if these are the same model")
    (line,) = told("unsloth/base-bnb-4bit", "quantised")
    assert "has more exact weights than those that it was trained on" in line


def test_the_example_of_the_page(spec_content: Content) -> None:
    page = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    parts = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert len(parts) == 2
    spec = parse_spec(spec_content(**parts[0], **parts[1]))
    again = parse_spec(spec.model_dump(mode="json", by_alias=True))
    assert again == spec and yaml.safe_load(spec.to_yaml())["models"] == parts[0]["models"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {"x": "zoo:ja+./x"}}, "models.x: is an adapter of zoo:ja, and base_model is"),
        ({"base_model": "a+b"}, "base_model: a.b has an adapter itself"),
        ({"merge": {"space": "weights", "method": "cat"}}, "merge.space: should be 'adapter'"),
        ({"merge": {"space": "adapter", "method": "cat", "density": 1}}, "cat has no parameter"),
        ({"evaluation": {"merger": "checkpoint"}}, "an adapter is merged in memory"),
        (
            {
                "models": {"x": "./x"},
                "merge": {"space": "adapter", "method": "cat", "include": "search"},
            },
            "merge.include: there is one adapter",
        ),
        (
            {
                "tasks": {
                    "words": {
                        "type": "lm_eval",
                        "task": "wikitext",
                        "metric": "word_perplexity",
                        "data": {"search": "[:9]"},
                    }
                },
                "objectives": [{"minimize": "words.word_perplexity"}],
            },
            "baselines: there is nothing to train on in tasks of type lm_eval",
        ),
    ],
)
def test_a_spec_that_says_something_else_is_refused(
    change: dict[str, Any], words: str, spec_content: Content
) -> None:
    given = {"models": {"x": "./x", "y": "./y"}, "baselines": ["trained"]}
    merge = {"space": "adapter", "method": "cat"}
    assert parse_spec(spec_content(**given, merge=merge))
    with pytest.raises(SpecError, match=words):
        parse_spec(spec_content(**{**given, "merge": merge, **change}))
