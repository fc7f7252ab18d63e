"""Ids of studies and trials that SQLite hands out once.

By Optuna's tables a new row gets the id after the largest that is there, which may be a deleted
one's. But optuna-dashboard keeps finished trials by these ids, in its server and in the browser's
page, and would show a deleted study's in the next one. With AUTOINCREMENT, a word in the table's
definition, it is the id after the largest that has ever been there, as in PostgreSQL.
"""

import re
import sqlite3
from contextlib import closing, suppress

from optuna.storages import RDBStorage

_IDS = {"studies": "study_id", "trials": "trial_id"}


def hand_out_once(rdb: RDBStorage) -> None:
    """Puts AUTOINCREMENT into the tables that have it not, for the holder of the tables.

    Where the file cannot be written now, it is left to the next one who opens it.
    """
    with closing(rdb.engine.raw_connection()) as pooled, suppress(sqlite3.Error):
        connection = pooled.driver_connection
        assert isinstance(connection, sqlite3.Connection)
        for table, column in _IDS.items():
            if (definition := _with_autoincrement(connection, table, column)) is not None:
                _define_anew(connection, table, definition)


def _with_autoincrement(connection: sqlite3.Connection, table: str, column: str) -> str | None:
    """The definition of a table that has no AUTOINCREMENT yet, with it and another name.

    None where it has, or is none that this knows.
    """
    known = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
    (defined,) = connection.execute(known, [table]).fetchone()
    changes = (
        (rf"^CREATE TABLE \"?{table}\"?", f"CREATE TABLE {table}_anew"),
        (rf"\b{column} INTEGER NOT NULL", f"{column} INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL"),
        (rf",\s*PRIMARY KEY \({column}\)", ""),
    )
    for old, new in changes:
        defined, count = re.subn(old, new, defined)
        if count != 1:
            return None
    return str(defined)


def _define_anew(connection: sqlite3.Connection, table: str, definition: str) -> None:
    """A new table takes the old one's place, by section 7 of sqlite.org/lang_altertable.html.

    Whole or not at all. Other connections notice by themselves.
    """
    indexes = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql NOTNULL"
    connection.rollback()
    connection.execute("BEGIN IMMEDIATE")
    try:
        again = [sql for (sql,) in connection.execute(indexes, [table])]
        for statement in (
            definition,
            f"INSERT INTO {table}_anew SELECT * FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE {table}_anew RENAME TO {table}",
            *again,
        ):
            connection.execute(statement)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
