"""URLs of storages: what is taken, and how they are shown, without passwords."""

import os
import re
import warnings
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from evomerge_optuna.errors import UsageError
from evomerge_optuna.home import home

STORAGE_VARIABLE = "EVOMERGE_STORAGE"
GRPC_PORT = 13000
_OTHERS = ("mysql", "mariadb", "oracle", "mssql", "mongodb", "redis", "http", "https", "s3", "file")
# Of libpq's connection keywords those that are no addresses, ways or times.
_SECRET = re.compile("password|secret|scram_.*_key")
# Where a part is something else, a password may have slipped into it.
_NAME, _HOST = re.compile(r"[\w.+@-]*"), re.compile(r"[\w.:%/,-]*")
_PARTS = {"username": _NAME, "host": _HOST, "database": _NAME}
_HIDDEN = "***"
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
        # A word that is no database's name might be anything.
        kind = url.get_backend_name()
        named = f" '{kind}'" if kind in _OTHERS else ""
        raise UsageError(f"this kind of storage{named} is not supported; {_FORMS}")
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
        # Of an empty user or password SQLAlchemy thinks nothing.
        if text.partition("://")[2][:1] not in ("", "/") or has_password(str(url.database)):
            raise UsageError(
                "a SQLite file has neither user nor password nor host; write sqlite:///FILE"
            )
        return url.set(database=_sqlite_file(url.database))
    # Else the rest of a password would pass for a host, and be shown.
    if text.count("@") > (url.username is not None):
        raise UsageError(
            f"the storage URL has an '@' too many; in a name or password write %40 for it; {_FORMS}"
        )
    _check_options(url)
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
    """The URL as it may be printed: without its password, nor its query, which may hold one.

    Nor is a part printed that may hold one by a slip of the pen.
    """
    slips = {name for name, part, kind in _parts(url) if _is_slip(part, kind)}
    bare = url.set(
        username=_HIDDEN if "username" in slips else None,
        host=_HIDDEN if "host" in slips else None,
        database=_HIDDEN if "database" in slips else None,
        query={},
    )
    return bare.render_as_string(hide_password=True).replace(quote(_HIDDEN), _HIDDEN)


def passwords(url: URL) -> list[str]:
    """What is a password in a URL; empty ones are none."""
    query = url.normalized_query
    asked = [value for name in query if _SECRET.search(name.lower()) for value in query[name]]
    return [str(secret) for secret in (url.password, *asked) if secret]


def without_secrets(text: str, url: URL) -> str:
    """What a driver says, without what nobody else may see of a URL, however it is written."""
    slips = [str(part) for _, part, kind in _parts(url) if _is_slip(part, kind)]
    secrets = [*passwords(url), *slips]
    written = {way(secret) for secret in secrets for way in (str, quote_plus, quote, _quote_all)}
    for form in sorted(written, key=len, reverse=True):  # one may be part of another
        text = text.replace(form, _HIDDEN)
    return text


def without_user(text: str) -> str:
    """A text without users and passwords of the URLs in it."""
    return re.sub(r"://[^\s/]*@", f"://{_HIDDEN}@", text)


def has_password(path: str) -> bool:
    """Does it look as if it were no path but `user:password@host`?"""
    return re.search(r":[^/]*@|://", path) is not None


def _parts(url: URL) -> Iterator[tuple[str, str | None, re.Pattern[str]]]:
    """The parts that are no passwords, and what each looks like; a SQLite file may be anything."""
    if url.drivername == "sqlite":
        return
    for name, kind in _PARTS.items():
        yield name, getattr(url, name), kind
    for name, kind in {"user": _NAME, "dbname": _NAME, "host": _HOST}.items():
        for value in url.normalized_query.get(name, ()):
            yield f"query {name}", value, kind


def _is_slip(part: str | None, kind: re.Pattern[str]) -> bool:
    return part is not None and not kind.fullmatch(part)


def _quote_all(text: str) -> str:
    return quote(text, safe="")


def _check_options(url: URL) -> None:
    """Refuses options that PostgreSQL does not know, which its driver would name: `?PASSWORD`.

    Raises:
        UsageError: without naming it.
    """
    try:
        from psycopg import pq
    except ImportError:
        return  # opening the storage says that the driver is missing
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if not url.query.keys() <= known:
        raise UsageError(
            f"the storage URL has an option after its '?' that PostgreSQL does not know; {_FORMS}"
        )
