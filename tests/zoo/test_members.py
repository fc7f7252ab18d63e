"""The zoo's models by their names: the same bits everywhere, which can do what is promised.

Covers models.sources.zoo, too.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.models.sources.zoo import ZOO_MODELS
from evomerge_optuna.zoo import members
from evomerge_optuna.zoo.members import GROUPS, MEMBERS, Group, member_folder
from evomerge_optuna.zoo.shipped import digest
from tests.zoo.skills import check_images, check_judges, check_language, check_vision


def test_every_member_is_a_model_that_a_spec_can_name() -> None:
    assert {"zoo:base", "zoo:vlm"} <= set(ZOO_MODELS)
    assert tuple(f"zoo:{name}" for name in MEMBERS) == ZOO_MODELS


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_the_files_of_the_package_are_those_of_the_table(group: Group) -> None:
    assert digest(group.shipped) == group.sha256
    assert group.shipped.name == group.name


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_weights_are_those_of_the_package_in_float32(group: Group, home: Path) -> None:
    for name in group.members:
        files = list(member_folder(name).rglob("*.safetensors"))
        assert files
        for file in files:
            place = file.relative_to(member_folder(name))
            own = group.shipped / name / place
            shipped = load_file(own if own.exists() else group.shipped / "common" / place)
            for tensor, values in load_file(file).items():
                assert values.dtype != torch.float16
                assert torch.equal(values, shipped[tensor].to(values.dtype))


def test_it_is_written_once_and_not_where_an_older_one_is(home: Path) -> None:
    older = home / "models" / "zoo-7ac0495c5192" / "ja"  # trained by the first version
    older.mkdir(parents=True)
    folder = member_folder("ja")
    assert folder.is_relative_to(home) and older not in (folder, *folder.parents)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert member_folder("ja") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_damaged_files_are_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group("language", ("ja",), lambda _: None, sha256="0" * 64)
    monkeypatch.setattr(members, "GROUPS", (group,))
    with pytest.raises(EvomergeError, match=r"weights/language: .* install evomerge-optuna again"):
        member_folder("ja")


def test_the_language_models_can_do_what_is_promised(home: Path) -> None:
    check_language(member_folder("base").parent)


def test_the_vision_models_can_do_what_is_promised(home: Path) -> None:
    check_vision(member_folder("vlm").parent)


def test_the_image_models_can_do_what_is_promised(home: Path) -> None:
    check_images(member_folder("sd-base").parent)
    check_judges(member_folder("sd-clip").parent)
