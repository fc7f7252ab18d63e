"""Training the zoo anew gives models that can do the same; their bits depend on the processor."""

from pathlib import Path

import pytest

from evomerge_optuna.zoo.make import make
from evomerge_optuna.zoo.members import GROUPS, Group
from evomerge_optuna.zoo.shipped import digest, unpack
from tests.zoo.skills import check_images, check_judges, check_language, check_vision

SKILLS = {
    "language": check_language,
    "vision": check_vision,
    "images": check_images,
    "judges": check_judges,
}


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_zoo_trained_anew_can_do_the_same(group: Group, tmp_path: Path) -> None:
    packed, written = tmp_path / "packed", tmp_path / "written"
    assert make(group, packed) == digest(packed)
    unpack(packed, group.members, written)
    SKILLS[group.name](written)
