"""Storage URLs: what is taken, what is refused, and no password in any message.

Covers store.faults, store.store and store.urls, too.
"""

import re
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import optuna
import psutil
import pytest
import sqlalchemy
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.errors import EvomergeError, StorageError, UsageError
from evomerge_optuna.store.faults import database_errors
from evomerge_optuna.store.file_locks import FileLocks
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.urls import parse_url, shown, without_secrets
from tests.conftest import CommandLine


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgres_by_any_name_is_psycopg_3(scheme: str) -> None:
    url = parse_url(f"{scheme}://me:secret@host/db")
    assert url.drivername == "postgresql+psycopg"
    assert shown(url) == "postgresql+psycopg://me:***@host/db"


def test_only_its_tables_are_told_as_another_versions() -> None:
    url = parse_url("sqlite:///studies.db")
    tables = "The runtime optuna version 4 is no longer compatible with the table schema"
    with pytest.raises(StorageError, match="made by another version"), database_errors(url):
        raise RuntimeError(tables)
    driver = RuntimeError("The driver is too old (found version 11040)")
    with pytest.raises(RuntimeError, match="driver"), database_errors(url):
        raise driver


@pytest.mark.parametrize(
    "text",
    [
        *("mysql://me:secret@host/db", "secret", "sqlite://", "sqlite:///:memory:", "://", ""),
        *("sqlite://:@/secret@host/db?secret", "sqlite://:secret@/a.db", "sqlite://secret/a.db"),
        *("sqlite:///me:secret@host/db", "sqlite:///postgresql://me:secret@host/db"),
        *("sqlite:///a.db?password=secret", "secret://host", "postgresql+secret://host/db"),
        *("postgresql://host/db?secret=1", "postgresql://host/db?PASSWORD=secret"),
        *("postgresql://me:secret/host/db", "postgresql://us/er:secret@host/db"),
        *("grpc://me:secret@host:1", "grpc://host:1?password=secret", "grpc://host:1/secret"),
    ],
)
def test_what_is_no_storage(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_url(text)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told", "said"),
    [
        ("postgresql://me:secret@h/db", "me:***@h/db", "no such password: secret"),
        ("postgresql://me:se/cret@h/db", "me:***@h/db", "se/cret, se%2Fcret"),
        ("postgresql://me:a%20secret@h/db", "me:***@h/db", "a secret, a+secret, a%20secret"),
        ("postgresql://me%3Asecret@h/db", "***@h/db", 'role "me:secret" does not exist'),
        ("postgresql://me@h/db;pw=secret", "me@h/***", 'database "db;pw=secret" does not exist'),
        ("postgresql://me@h/db%3Fpw=secret", "me@h/***", 'database "db?pw=secret" does not exist'),
        ("postgresql://me@h/db?password=a1&password=secret", "me@h/db", "neither a1 nor secret"),
        ("postgresql://me@h/db?sslpassword=secret", "me@h/db", "key secret is wrong"),
        ("postgresql://h/db?user=me:secret", "h/db", 'role "me:secret" does not exist'),
        ("grpc://h;secret:1", "***:1", "DNS of h;secret failed"),
    ],
)
def test_a_password_is_hidden_wherever_it_stands(text: str, told: str, said: str) -> None:
    url = parse_url(text)
    assert shown(url) == f"{url.drivername}://{told}"
    hidden = without_secrets(f"FATAL: {said}", url)
    assert hidden.startswith("FATAL: ") and "***" in hidden
    assert not any(part in hidden for part in ("secret", "se/cret", "se%2Fcret", "a1"))


@given(st.text())
def test_any_text_is_a_url_or_a_usage_error(text: str) -> None:
    for candidate in (text, f"sqlite:///{text}", f"postgresql://{text}"):
        try:
            parse_url(candidate)
        except UsageError as error:
            assert "write sqlite:///FILE" in str(error)


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StorageError, match="is the server running") as error:
        open_store("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(error.value)


def test_postgres_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)  # what import sees where it is not installed
    with pytest.raises(StorageError, match=r"pip install 'evomerge-optuna\[postgres\]'"):
        open_store("postgresql://me:secret@127.0.0.1:1/db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.db"
    file.write_text("not a database, by far " * 100)
    with pytest.raises(StorageError, match="the file is damaged or something else"):
        open_store(f"sqlite:///{file}")
    assert file.read_text().startswith("not a database")


def test_a_folder_where_no_lock_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    locks = FileLocks(tmp_path / "file" / "studies.db")
    with (
        pytest.raises(StorageError, match=r"file: cannot be written .*lock beside studies\.db"),
        locks.locked("tables", 0.0),
    ):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvomergeError, match="cannot be made"):
        open_store(f"sqlite:///{tmp_path}/file/below/studies.db")


PASSWORD = "hid:/@%?#&=$den"


@pytest.fixture
def guarded(postgres: str) -> str:
    """The server's URL for a user whose password is asked for over TCP."""
    url = sqlalchemy.make_url(postgres).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("DROP ROLE IF EXISTS guarded"))
        connection.execute(
            sqlalchemy.text(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'".replace(":", r"\:"))
        )
        file = Path(str(connection.scalar(sqlalchemy.text("SHOW hba_file"))))
        rule = "local all guarded scram-sha-256\nhost all guarded all scram-sha-256\n"
        if rule not in (rules := file.read_text()):
            file.write_text(rule + rules)
        connection.execute(sqlalchemy.text("SELECT pg_reload_conf()"))
    engine.dispose()
    return url.set(drivername="postgresql", username="guarded", password="wrong-secret") \
        .render_as_string(hide_password=False)  # fmt: skip


def test_a_wrong_password(guarded: str) -> None:
    with pytest.raises(StorageError) as error:
        open_store(guarded)
    assert "password authentication failed" in str(error.value)
    assert "correct the password" in str(error.value)
    assert "wrong-secret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_password_is_told_to_nobody(
    guarded: str,
    database: Callable[[str], str],
    command_line: CommandLine,
    spec_content: Callable[..., dict[str, Any]],
) -> None:
    """Neither in a process list nor by any command, page, file or row of the database."""
    url = sqlalchemy.make_url(database("postgres")).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} OWNER TO guarded")
    bare = url.set(username="guarded").render_as_string(hide_password=False)
    url = url.set(username="guarded", password=PASSWORD)
    command_line.variables["EVOMERGE_STORAGE"] = url.render_as_string(hide_password=False)
    (command_line.folder / "tiny.yaml").write_text(yaml.safe_dump(spec_content()))

    process = command_line.start_afresh("study", "run", "tiny.yaml", "--workers", "2")
    told: set[str] = set()
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            for each in (parent, *parent.children(recursive=True)):
                told.add(" ".join(each.cmdline()))
        time.sleep(0.1)
    assert len(told) >= 3  # the command and two workers
    told |= set(process.communicate())
    assert process.returncode == 0
    for command in ("list", "show tiny", "show tiny --json", "test tiny", "export tiny out"):
        told |= set(command_line.run("study", *command.split()))
    process = command_line.start_afresh("dashboard", "--port", "0")
    assert process.stdout is not None
    found = re.search(r"http://\S+/", process.stdout.readline())
    assert found
    address = found[0]
    for page in ("dashboard", "api/meta", "api/studies", "api/studies/1"):
        with urllib.request.urlopen(f"{address}{page}") as response:
            told.add(response.read().decode())
    process.terminate()
    told |= set(process.communicate())
    with engine.connect() as connection:
        for table in sqlalchemy.inspect(engine).get_table_names():
            rows = connection.exec_driver_sql(f"SELECT {table}::text FROM {table}").scalars()
            told.add("\n".join(rows))
    engine.dispose()
    files = [file for file in command_line.folder.rglob("*") if file.is_file()]
    assert command_line.folder / "out" / "README.md" in files
    told |= {file.read_bytes().decode(errors="replace") for file in files}
    for secret in (PASSWORD, quote_plus(PASSWORD), quote(PASSWORD, safe="")):
        assert not [text for text in told if secret in text]

    # It need not be in the URL.
    del command_line.variables["EVOMERGE_STORAGE"]
    _, said = command_line.run("study", "list", "--storage", bare, code=1)
    assert "no password supplied; put it into" in said
    command_line.variables["PGPASSWORD"] = PASSWORD
    assert "tiny" in command_line.run("study", "list", "--storage", bare)[0]
    del command_line.variables["PGPASSWORD"]
    (file := command_line.folder / "pgpass").write_text(
        f"*:*:*:guarded:{PASSWORD.replace(':', chr(92) + ':')}\n"
    )
    file.chmod(0o600)
    assert "tiny" in command_line.run("study", "list", "--storage", f"{bare}&passfile={file}")[0]


def test_a_reader_does_not_lock_a_sqlite_study(tmp_path: Path) -> None:
    """As a dashboard does that is amid its reading."""
    store = open_store(f"sqlite:///{tmp_path / 'studies.db'}")
    study = optuna.create_study(storage=store.rdb, study_name="s")
    with store.rdb.engine.connect() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM studies").fetchall()
        study.tell(study.ask(), 1.0)  # else SQLite would wait a minute, then fail
    assert study.best_value == 1.0
