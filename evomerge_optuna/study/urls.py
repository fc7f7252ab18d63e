"""URLs of storages: what is taken, and how they are shown, without passwords."""

import os
import re
import warnings
from urllib.parse import unquote

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from evomerge_optuna.errors import UsageError
from evomerge_optuna.explain import one_line
from evomerge_optuna.home import home

STORAGE_VARIABLE = "EVOMERGE_STORAGE"
GRPC_PORT = 13000
_FORMS = "write sqlite:///FILE, postgresql://USER:PASSWORD@HOST/DATABASE or grpc://HOST:PORT"


def default_url() -> str:
    """`$EVOMERGE_STORAGE`, else a SQLite file in the home folder."""
    return os.environ.get(STORAGE_VARIABLE) or f"sqlite:///{home() / 'evomerge.db'}"


def parse_url(text: str) -> URL:
    """A SQLAlchemy URL; `postgres://` and `postgresql://` mean psycopg 3, `grpc://` a proxy.

    `~` is the home folder.

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
        raise UsageError(f"storage '{one_line(url.drivername, 40)}' is not supported; {_FORMS}")
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", unquote(text)):
        raise UsageError(f"the storage URL has a character that is no text; {_FORMS}")
    if url.drivername == "grpc":
        return _proxy(url)
    try:
        # The engine refuses some URLs, or warns, in words that show the query.
        with warnings.catch_warnings(action="error", category=exc.SAWarning):
            url.get_dialect()().create_connect_args(url)
    except (exc.ArgumentError, exc.SAWarning, ValueError) as error:
        raise UsageError(f"the storage URL has a part that cannot be; {_FORMS}") from error
    if url.drivername == "sqlite":
        return url.set(database=_sqlite_file(url.database))
    # Else the rest of a password would pass for a host, and be shown.
    if text.count("@") > (url.username is not None):
        raise UsageError(
            f"the storage URL has an '@' too many; in a name or password write %40 for it; {_FORMS}"
        )
    return url


def _sqlite_file(database: str | None) -> str:
    if database in (None, "", ":memory:"):
        raise UsageError("a study in memory could not be resumed; write sqlite:///FILE")
    file = os.path.expanduser(str(database))
    if file.startswith("~"):
        raise UsageError("the storage URL names a home folder that is none; write sqlite:///FILE")
    return file


def _proxy(url: URL) -> URL:
    if not url.host or url != URL.create("grpc", host=url.host, port=url.port):
        raise UsageError("a proxy is named by host and port alone; write grpc://HOST:PORT")
    return url.set(port=url.port or GRPC_PORT)


def shown(url: URL) -> str:
    """The URL as it may be printed: without its password, nor its query, which may hold one."""
    return url.set(query={}).render_as_string(hide_password=True)


def passwords(url: URL) -> list[str]:
    """What nobody else may see of a URL; empty ones are none."""
    found = (url.password, url.query.get("password"), url.query.get("sslpassword"))
    return [str(secret) for secret in found if secret]
