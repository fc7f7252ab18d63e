"""The table of families: models and studies find their row, and a new family is a new row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from evomerge_optuna import families
from evomerge_optuna.errors import SpecError
from evomerge_optuna.families import (
    CAUSAL_LM,
    FAMILIES,
    check_models,
    family_in,
    family_of,
    merged_folder,
    with_host,
)
from evomerge_optuna.families.base import Architecture
from evomerge_optuna.families.causal_lm import CausalLM
from evomerge_optuna.models.opened import OpenedModel, OpenedModels
from evomerge_optuna.spec import StudySpec
from tests.checked import checked
from tests.conftest import SpecMaker
from tests.vision import save_tiny_llava


class Pipelines(CausalLM):
    """Of which one folder is merged; it is found by the kind of its models' configurations."""

    name: ClassVar[str] = "pipeline"
    kinds: ClassVar[tuple[str, ...]] = ("llama",)

    def merged_folder(self, folder: Path, components: Sequence[str] = ()) -> Path:
        return folder / "unet"

    def check(self, spec: StudySpec, models: Mapping[str, OpenedModel]) -> Architecture:
        return Architecture("UNet", dict.fromkeys(models, 1), 5, (), (), {}, None)


def test_a_kind_has_one_family() -> None:
    kinds = [kind for family in FAMILIES for kind in family.kinds]
    assert len(set(kinds)) == len(kinds)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_a_models_family(tiny: Path, tmp_path: Path, home: Path) -> None:
    vlm = save_tiny_llava(tmp_path / "vlm", 0)
    assert family_of(OpenedModel(str(tiny / "a"))) is family_in(tiny / "a") is CAUSAL_LM
    assert family_of(OpenedModel(str(vlm))).name == "vision-language model"
    assert merged_folder(str(tiny / "a")) == tiny / "a"
    assert merged_folder(str(vlm)) != vlm


def test_the_first_model_with_an_unmerged_part_is_the_host(
    make_spec: SpecMaker, tiny: Path, tmp_path: Path
) -> None:
    spec = make_spec()
    assert with_host(spec, OpenedModels(spec.model_ids())) is spec
    vlm = str(save_tiny_llava(tmp_path / "vlm", 0))
    spec = make_spec(models={"a": str(tiny / "a"), "vl": vlm})
    found = with_host(spec, OpenedModels(spec.model_ids()))
    assert (found.host, found.host_key, found.vision) == (vlm, "models.vl", "vl")


def test_what_is_of_no_family_is_refused(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(SpecError, match=r"models.b: BertModel is no causal .* of type gemma3, lla"):
        checked(make_spec(models={"a": str(tiny / "a"), "b": str(tmp_path / "bert")}))


def test_a_new_family_is_a_row(
    make_spec: SpecMaker, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines = Pipelines()
    monkeypatch.setattr(families, "FAMILIES", (*FAMILIES, pipelines))
    spec = make_spec()
    models = OpenedModels(spec.model_ids())
    assert family_of(models["models.a"]) is pipelines
    assert merged_folder(str(tiny / "a")) == tiny / "a" / "unet"
    hosted = with_host(spec, models)
    assert hosted.host_key == "base_model"
    assert check_models(hosted, models).name == "UNet"
