"""An open store of studies; `store.open` opens one."""

from dataclasses import dataclass

from optuna.storages import BaseStorage
from sqlalchemy.engine import URL

from evomerge_optuna.store.artifacts import Artifacts
from evomerge_optuna.store.lock import Locks
from evomerge_optuna.store.urls import shown


@dataclass(frozen=True)
class Store:
    """Where studies are kept: an RDB for trials, or its proxy; a folder or bucket for artifacts."""

    url: URL
    rdb: BaseStorage
    locks: Locks
    artifacts: Artifacts

    def __str__(self) -> str:
        return shown(self.url)
