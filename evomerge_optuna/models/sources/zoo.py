"""The zoo's tiny models: `zoo:NAME`, whose files come with the package."""

from pathlib import Path

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.sources.base import Location, Source
from evomerge_optuna.zoo.members import MEMBERS, member_folder

_PREFIX = "zoo:"
ZOO_MODELS = tuple(_PREFIX + name for name in MEMBERS)


class ZooSource(Source):
    """Models of the zoo."""

    cure = "the zoo comes with the program, so install the version that the study was begun with"

    def recognises(self, name: str) -> bool:
        return name.startswith(_PREFIX)

    def check(self, name: str, key: str) -> None:
        if name not in ZOO_MODELS:
            raise SpecError(f"{key}: the zoo has no model '{name}'; it has {', '.join(ZOO_MODELS)}")

    def location(self, name: str) -> Location:
        return str(self.folder(name)), None

    def folder(self, name: str) -> Path:
        return member_folder(name.removeprefix(_PREFIX))
