"""Which models the zoo has: a row for each group that was trained together.

Their files come with the package (`zoo.shipped`), so that they are the same on every machine;
training is chaotic, and ends elsewhere where a processor adds in another order. `train` made them,
and `python -m evomerge_optuna.zoo.make GROUP` runs it again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.zoo import language, vision
from evomerge_optuna.zoo.images import build
from evomerge_optuna.zoo.shipped import SHIPPED, digest, unpack


@dataclass(frozen=True)
class Group:
    """Models that were trained together.

    Attributes:
        name: of the folder in `zoo/weights`.
        train: writes the trained models to folders of their names in the folder that it is given.
        sha256: of the shipped files, see `shipped.digest`.
    """

    name: str
    members: tuple[str, ...]
    train: Callable[[Path], None]
    sha256: str

    @property
    def shipped(self) -> Path:
        """The folder of the files that come with the package."""
        return SHIPPED / self.name


GROUPS = (
    Group(
        "language",
        language.ZOO,
        language.train_zoo,
        sha256="f422b6ab7c852c83ab9eac0c8304d5a3e49d5bdf40a847bdffa44322967a73b0",
    ),
    Group(
        "vision",
        vision.VLM_ZOO,
        vision.train_vlm_zoo,
        sha256="ed4bbefda679b518811dd017afaa7f90981cb9561c3134d3f3b25dda0317178a",
    ),
    Group(
        "images",
        build.PIPELINES,
        build.train_pipelines,
        sha256="4082fc7bb3e4eaa38fa9c3afbfbcdca8f42361ee1d3f5e62736929312dc5719b",
    ),
    Group(
        "judges",
        build.JUDGES,
        build.train_judge,
        sha256="f8909f160bcde7c822afd77968189538c55491d47612a4c39e5df3c9850af7f9",
    ),
)
MEMBERS = tuple(name for group in GROUPS for name in group.members)


def member_folder(name: str) -> Path:
    """The checkpoint folder of one of MEMBERS, float32; its group is written where it is not yet.

    Raises:
        EvomergeError: the files that come with the package are damaged.
    """
    group = next(group for group in GROUPS if name in group.members)
    key = group.sha256[:12]
    return derived_folder(f"zoo-{group.name}", key, lambda folder: _write(group, folder)) / name


def _write(group: Group, folder: Path) -> None:
    if digest(group.shipped) != group.sha256:
        raise EvomergeError(
            f"{group.shipped}: these are not the zoo's files of this version; "
            "install evomerge-optuna again"
        )
    unpack(group.shipped, group.members, folder)
