"""URLs of storages: what is taken, and how they are shown, without passwords."""

import os

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from evomerge_optuna.errors import UsageError
from evomerge_optuna.home import home

STORAGE_VARIABLE = "EVOMERGE_STORAGE"
GRPC_PORT = 13000
_FORMS = "write sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE or grpc://HOST:PORT"


def default_url() -> str:
    """`$EVOMERGE_STORAGE`, else a SQLite file in the home folder."""
    return os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{home() / 'evomerge.db'}"


def parse_url(text: str) -> URL:
    """A SQLAlchemy URL; `postgres://` and `postgresql://` mean psycopg 3, `grpc://` a proxy.

    Raises:
        UsageError: not a database URL, or a database that is not supported.
    """
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError) as error:
        raise UsageError(f"the storage URL cannot be read; {_FORMS}") from error
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("sqlite", "postgresql+psycopg", "grpc"):
        raise UsageError(f"storage '{url.drivername}' is not supported; {_FORMS}")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError("a study in memory could not be resumed; write sqlite:///FILE")
    if url.drivername == "grpc":
        if not url.host or url != URL.create("grpc", host=url.host, port=url.port):
            raise UsageError("a proxy is named by host and port alone; write grpc://HOST:PORT")
        return url.set(port=url.port or GRPC_PORT)
    return url


def shown(url: URL) -> str:
    """The URL as it may be printed: without its password, nor its query, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def passwords(url: URL) -> list[str]:
    """What nobody else may see of a URL; empty ones are none."""
    found = (url.password, url.query.get("password"), url.query.get("sslpassword"))
    return [str(secret) for secret in found if secret]
