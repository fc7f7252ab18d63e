"""Which models the zoo has, and what trains them: a row for each group that is trained together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomerge_optuna.zoo import language, vision

OnStep = Callable[[int, int], None]  # steps done, steps in all


@dataclass(frozen=True)
class Group:
    """Models that are trained together, into folders of their names beside each other."""

    names: tuple[str, ...]
    build: Callable[[OnStep], Path]


GROUPS = (
    Group(language.ZOO, language.build_zoo),
    Group(vision.VLM_ZOO, vision.build_vlm_zoo),
)
MEMBERS = tuple(name for group in GROUPS for name in group.names)


def member_folder(name: str, on_step: OnStep = lambda done, total: None) -> Path:
    """The checkpoint folder of one of MEMBERS; its group is trained if it is not there yet.

    Args:
        on_step: called with the steps of training that are done, and with all of them.

    Raises:
        SpecError: a library that the group is trained with is not installed.
    """
    group = next(group for group in GROUPS if name in group.names)
    return group.build(on_step) / name
