"""Configurations that differ where the tensors do not show it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoConfig,
    GraniteConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3MoeConfig,
)

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.vision_language.family import VisionLanguage
from evomerge_optuna.models.differences import (
    check_same_in_a_stack,
    configuration_remarks,
    differences,
    with_another_configuration,
)
from evomerge_optuna.spec import StudySpec, parse_spec
from tests.checked import checked
from tests.conftest import SpecMaker

SMALL = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "vocab_size": 300}


def rope(theta: float, **other: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta, **other}


@pytest.mark.parametrize(
    ("kind", "key", "one", "other", "name"),
    [
        (MistralConfig, "rope_parameters", rope(1e4), rope(1e6), "rope_parameters.rope_theta"),
        (MistralConfig, "sliding_window", 16, None, "sliding_window"),
        (MistralConfig, "rms_norm_eps", 1e-6, 1e-5, "rms_norm_eps"),
        (GraniteConfig, "embedding_multiplier", 1.0, 12.0, "embedding_multiplier"),
        (GraniteConfig, "attention_multiplier", 1.0, 0.1, "attention_multiplier"),
        (GraniteConfig, "residual_multiplier", 1.0, 0.2, "residual_multiplier"),
        (GraniteConfig, "logits_scaling", 1.0, 8.0, "logits_scaling"),
        (Qwen3MoeConfig, "num_experts_per_tok", 2, 4, "num_experts_per_tok"),
        (Qwen3MoeConfig, "norm_topk_prob", False, True, "norm_topk_prob"),
    ],
)
def test_what_changes_the_computation(
    kind: type[PreTrainedConfig], key: str, one: Any, other: Any, name: str
) -> None:
    configs = {"a": kind(**SMALL, **{key: one}), "b": kind(**SMALL, **{key: other})}
    (found,) = differences(configs)
    assert found.name == name and "a " in str(found) and ", b " in str(found)
    assert with_another_configuration(configs) == ("b",)


@pytest.mark.parametrize(
    "change",
    [
        {"use_cache": False},
        {"attention_dropout": 0.5},
        {"initializer_range": 0.5},
        {"dtype": "float16"},
        {"eos_token_id": 5},
        {"architectures": ["A"]},
        {"vocab_size": 301},
        {"unsloth_version": "2024.9"},  # what the class does not know
        {"transformers_version": "4.1.0"},
        {"output_attentions": True},
    ],
)
def test_what_does_not(change: dict[str, Any]) -> None:
    assert not differences({"a": MistralConfig(**SMALL), "b": MistralConfig(**SMALL | change)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"rope_theta": 5000.0}, {"rope_parameters": rope(5000.0)}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        ),
        ({"model_type": "mixtral", "head_dim": 128}, {"model_type": "mixtral"}),
    ],
)
def test_older_forms_of_the_same(tmp_path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """transformers 4 wrote the rope's base beside its scaling, under other names."""
    configs = {}
    for name, content in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        text = json.dumps({"model_type": "mistral", **content})
        (tmp_path / name / "config.json").write_text(text)
        configs[name] = AutoConfig.from_pretrained(tmp_path / name)
    assert not differences(configs)


@pytest.fixture
def with_config(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> Callable[..., Any]:
    """A spec whose model b has another configuration and its own tensors."""

    def make(spec: dict[str, Any] | None = None, **change: Any) -> Any:
        folder = Path(shutil.copytree(tiny / "b", tmp_path / "other", dirs_exist_ok=True))
        config = AutoConfig.from_pretrained(folder)
        for name, value in change.items():
            setattr(config, name, value)
        config.save_pretrained(folder)
        return make_spec(**{"models": {"a": str(tiny / "a"), "b": str(folder)}, **(spec or {})})

    return make


def test_whose_configuration_is_said(with_config: Callable[..., Any]) -> None:
    first, key = checked(with_config(rope_parameters=rope(1e6))).remarks
    assert first == (
        "Warning: the models' configurations differ; candidates have that of base_model, as "
        "mergekit's merges do (name another base_model to choose)"
    )
    assert key == (
        "  rope_parameters.rope_theta: base_model 10000.0, models.a 10000.0, models.b 1000000.0"
    )
    merge = {"base_model": None, "merge": {"method": "linear"}}
    first, _ = checked(with_config(merge, rms_norm_eps=1e-3)).remarks
    assert "that of models.a, the first model (name another one first to choose)" in first


def test_with_the_vision_of_a_model_it_is_that_one(make_spec: SpecMaker) -> None:
    configs: dict[str, PreTrainedConfig] = {
        key: MistralConfig(**SMALL, rms_norm_eps=eps)
        for key, eps in (("base_model", 1e-6), ("models.b", 1e-5))
    }
    spec = make_spec(vision="b")
    whose = VisionLanguage().whose_configuration(spec, "base_model")
    first, _ = configuration_remarks(spec, configs, whose)
    assert first.endswith("candidates have that of models.b, whose vision they keep")


def test_nothing_is_said_of_like_models(make_spec: SpecMaker) -> None:
    found = checked(make_spec())
    assert found.remarks == () and found.others == ()


def test_longest_texts_are_told_apart(with_config: Callable[..., Any]) -> None:
    found = checked(with_config(max_position_embeddings=99))
    assert found.remarks[1].endswith("99 (no computation depends on it but how long texts may be)")
    assert found.others == ()


def test_another_activation_is_another_network(with_config: Callable[..., Any]) -> None:
    with pytest.raises(
        SpecError, match=r"^models\.b: hidden_act is relu .*, but silu in that of b"
    ):
        checked(with_config(hidden_act="relu"))


def a_stack(spec_content: Callable[..., dict[str, Any]], **parts: Any) -> StudySpec:
    content = spec_content(**parts) | {"stage": "dfs"}
    return parse_spec({k: v for k, v in content.items() if k not in ("base_model", "merge")})


def test_a_stack_has_one_configuration(
    spec_content: Callable[..., dict[str, Any]], with_config: Callable[..., Any]
) -> None:
    models = with_config(rms_norm_eps=1e-3).models
    with pytest.raises(SpecError, match=r"^models\.b: rms_norm_eps is 0\.001 .* a stack has one"):
        checked(a_stack(spec_content, models=models))


def test_layers_of_a_stack_keep_what_is_listed_for_each(
    spec_content: Callable[..., dict[str, Any]],
) -> None:
    kinds = ("full_attention", "sliding_attention")
    configs: dict[str, PreTrainedConfig] = {
        kind: Qwen2Config(**SMALL, layer_types=[kind, kind]) for kind in kinds
    }
    assert differences(configs)
    assert configuration_remarks(a_stack(spec_content), configs, "one") == ()
    check_same_in_a_stack(configs)
