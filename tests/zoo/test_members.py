"""The zoo's models by their names: each group is trained at most once, and only where it is asked.

The training itself is tested in `test_language` and `test_vision`.

Covers models.sources.zoo, too.
"""

from pathlib import Path

import pytest

from evomerge_optuna.models.sources.zoo import ZOO_MODELS
from evomerge_optuna.zoo import members
from evomerge_optuna.zoo.language import RECIPE
from evomerge_optuna.zoo.members import MEMBERS, Group, member_folder


def test_every_member_is_a_model_that_a_spec_can_name() -> None:
    assert {"zoo:base", "zoo:vlm"} <= set(ZOO_MODELS)
    assert tuple(f"zoo:{name}" for name in MEMBERS) == ZOO_MODELS


def test_what_is_trained_already_is_found_where_it_was(home: Path) -> None:
    family = home / "models" / f"zoo-{RECIPE.digest()}"
    family.mkdir(parents=True)
    assert RECIPE.digest() == "7ac0495c5192"  # of the first version: a zoo is not trained again
    assert member_folder("ja") == family / "ja"


def test_a_group_is_asked_for_its_own_members(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []

    def build(on_step: members.OnStep) -> Path:
        on_step(1, 2)
        return tmp_path

    monkeypatch.setattr(members, "GROUPS", (*members.GROUPS, Group(("new",), build)))
    assert member_folder("new", lambda done, total: steps.append((done, total))) == tmp_path / "new"
    assert steps == [(1, 2)]
