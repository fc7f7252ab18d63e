"""What is deleted in a SQLite file comes back nowhere: not in the dashboard, nor by its id."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from optuna.trial import create_trial
from optuna_dashboard import wsgi

from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import delete_study
from tests.conftest import SpecMaker


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "studies.db"


def definitions(file: Path) -> dict[str, str]:
    with closing(sqlite3.connect(file)) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOTNULL"))


def content(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        return [line for line in connection.iterdump() if line.startswith("INSERT")]


def test_no_id_is_handed_out_twice(file: Path) -> None:
    rdb = open_store(f"sqlite:///{file}").rdb
    seen: set[tuple[int, int]] = set()
    for _ in range(3):
        study = optuna.create_study(storage=rdb, study_name="mine")
        study.add_trial(create_trial(value=1.0))
        seen.add((study._study_id, study.trials[0]._trial_id))
        optuna.delete_study(study_name="mine", storage=rdb)
    assert len({study for study, _ in seen}) == len({trial for _, trial in seen}) == 3


def test_a_file_of_optuna_alone_is_changed_in_nothing_else(file: Path) -> None:
    url = f"sqlite:///{file}"
    before = optuna.create_study(storage=url, study_name="theirs")
    before.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    rows, defined = content(file), definitions(file)
    open_store(url)
    anew = definitions(file)
    changed = {name for name in defined if defined[name] != anew[name]}
    assert changed == {"studies", "trials"}
    assert set(anew) - set(defined) == {"sqlite_sequence"}
    assert sorted(rows) == sorted(r for r in content(file) if "sqlite_sequence" not in r)
    before.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)  # still open
    assert [t.number for t in optuna.load_study(storage=url, study_name="theirs").trials] == [
        *range(5)
    ]
    open_store(url)
    assert definitions(file) == anew


def test_a_file_that_is_written_to_is_left_to_the_next(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge_optuna.store import open as storage

    url = f"sqlite:///{file}"
    optuna.create_study(storage=url, study_name="theirs")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(storage, "_SQLITE_TIMEOUT", 0.1)
        open_store(url)
        writer.execute("ROLLBACK")
    assert "AUTOINCREMENT" not in definitions(file)["studies"]
    open_store(url)
    assert "AUTOINCREMENT" in definitions(file)["studies"]


def test_a_running_dashboard_shows_nothing_of_a_deleted_study(
    make_spec: SpecMaker, home: Path
) -> None:
    store = open_store()
    page = wsgi(optuna.storages.get_storage(open_store().rdb), artifact_store=store.artifacts)

    def shown(study_id: int) -> tuple[str, dict[str, Any]]:
        request: dict[str, Any] = {}
        setup_testing_defaults(request)
        request["PATH_INFO"] = f"/api/studies/{study_id}"
        status: list[str] = []
        body = b"".join(page(request, lambda line, *_: status.append(line)))
        return status[0], json.loads(body)

    first = create_study(store, make_spec())
    run_trials(first, 3)
    describe_study(first)
    old = first.study._study_id
    assert len(shown(old)[1]["trials"]) == 3
    delete_study(store, "tiny")
    assert not [f for f in Path(str(store.artifacts)).iterdir() if f.is_file()]
    second = create_study(store, make_spec())
    run_trials(second, 1)
    assert shown(old)[0].startswith("404")
    status, found = shown(second.study._study_id)
    assert status.startswith("200") and len(found["trials"]) == 1
    assert found["note"]["body"] == ""  # not written yet, and not the first one's
    assert found["artifacts"] == []
