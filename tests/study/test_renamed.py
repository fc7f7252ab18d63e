"""A study renamed in optuna-dashboard is that study under its new name, also to who works on it."""

import io
import json
import shlex
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
import yaml
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import wsgi
from sqlalchemy import event

from evomerge_optuna import run_study
from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.report.notes import study_note
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.results.final_scores import stored_final_scores
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.next_trial import start_waiting_trial
from evomerge_optuna.search.objective import Objective
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import INTERRUPTED
from evomerge_optuna.study.studies import MergeStudy, delete_study, open_study
from tests.conftest import CommandLine, SpecMaker, wait_until
from tests.data.older import make
from tests.gate import Gate
from tests.older import command
from tests.older import older as older
from tests.search.test_killed_worker import processes, work

NEW = "the words' study"


def rename(study: MergeStudy, name: str = NEW) -> None:
    """By the request that optuna-dashboard's page makes."""
    storage = optuna.storages.get_storage(study.store.rdb)
    body = json.dumps({"study_name": name}).encode()
    request: dict[str, Any] = {}
    setup_testing_defaults(request)
    request |= {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": f"/api/studies/{storage.get_study_id_from_name(study.name)}/rename",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
    }
    answered: list[str] = []
    b"".join(wsgi(storage)(request, lambda status, *_: answered.append(status)))
    assert answered == ["201 Created"]


def check_whole(url: str, trials: int) -> None:
    """One study, under the new name, with so many scored trials."""
    store = open_store(url)
    assert optuna.get_all_study_names(store.rdb) == [NEW]
    found = open_study(store, NEW)
    assert [t.state for t in found.trials()] == [TrialState.COMPLETE] * trials
    everything = found.study.get_trials()
    assert {t.state for t in everything} <= {TrialState.COMPLETE, TrialState.FAIL}
    repeated = [t for t in everything if INTERRUPTED in t.user_attrs]
    assert len(everything) == trials + len(repeated)
    assert found.spec.study == found.name == NEW


def long_study(url: str, tiny: Path, folder: Path, make_spec: SpecMaker) -> MergeStudy:
    """Six trials, each so long that the study is renamed in the middle of some."""
    rows = folder / "many.jsonl"
    rows.write_text((tiny / "search.jsonl").read_text() * 4)
    words = {"type": "perplexity", "data": {"search": {"path": str(rows)}}}
    spec = make_spec(trials=6, tasks={"words": words}, evaluation={"batch_size": 1})
    return create_study(open_store(url), spec)


def test_while_two_workers_run_it(
    database: Callable[[str], str], tiny: Path, tmp_path: Path, make_spec: SpecMaker
) -> None:
    url = database("sqlite")
    study = long_study(url, tiny, tmp_path, make_spec)
    workers = [processes.Process(target=work, args=(url, 6), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    wait_until(lambda: study.finished() >= 1)
    rename(study)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    check_whole(url, 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "proxy of postgres"])
def test_while_a_command_runs_it(
    kind: str,
    database: Callable[[str], str],
    tmp_path: Path,
    gate: Gate,
    spec_content: Callable[..., dict[str, Any]],
    command_line: CommandLine,
) -> None:
    url, file = database(kind), tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(gate.before(spec_content(trials=6))))
    gate.let(1)
    running = command_line.start("study", "run", str(file), "--workers", "2", "--storage", url)
    wait_until(lambda: gate.passed() == 1 and gate.waiting() == 2, lambda: running.poll() is None)
    rename(open_study(open_store(url), "tiny"))  # with a trial in each worker's hands
    gate.open()
    out, said = running.communicate()
    assert running.returncode == 0, out + said
    assert f"{NEW}: 6 trials" in said and "Traceback" not in said
    check_whole(url, 6)


@pytest.mark.parametrize("at", ["load", "__call__", "on_trial", "after"])
def test_a_worker_goes_on_in_it(
    at: str, make_spec: SpecMaker, database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database("sqlite")
    study = create_study(open_store(url), make_spec())
    once = threading.Event()

    def rename_once(*_: Any) -> None:
        if not once.is_set():
            once.set()
            rename(open_study(open_store(url), "tiny"))

    if at in ("load", "__call__"):
        method = getattr(Objective, at)
        monkeypatch.setattr(Objective, at, lambda *given: (rename_once(), method(*given))[1])
    on_trial = rename_once if at == "on_trial" else lambda *_: None
    run_trials(study, 3, on_trial=on_trial)
    if at == "after":
        rename_once()
        run_trials(study, 4)
    check_whole(url, 4 if at == "after" else 3)


@pytest.mark.parametrize("statement", ["UPDATE study_system_attributes", "UPDATE trials"])
def test_a_worker_goes_on_in_it_where_a_row_went_that_it_had_read(
    statement: str, make_spec: SpecMaker, home: Path
) -> None:
    study = create_study(open_store(), make_spec())
    renamed = threading.Event()

    def rename_before(_: Any, __: Any, sql: str, *___: Any) -> None:
        if sql.startswith(statement) and not renamed.is_set():
            renamed.set()
            rename(open_study(open_store(), "tiny"))

    def note(trial: FrozenTrial, _: Any) -> None:
        study.store.rdb.set_study_system_attr(study.study._study_id, "note", trial.number)

    assert isinstance(study.store.rdb, RDBStorage)
    event.listen(study.store.rdb.engine, "before_cursor_execute", rename_before)
    run_trials(study, 3, on_trial=note)
    assert renamed.is_set()
    check_whole(str(study.store), 3)


def test_final_scores_are_stored_in_it(make_spec: SpecMaker, home: Path) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 2)
    said: list[str] = []

    def say(line: str) -> None:
        if not said:
            rename(open_study(open_store(), "tiny"))
        said.append(line)

    best = find_trial(study, "best")
    rows = FinalScorer(study, say=say).final_scores(best)
    found = open_study(open_store(), NEW)
    assert stored_final_scores(found, find_trial(found, "best")) == rows


def test_a_study_deleted_while_it_runs(make_spec: SpecMaker, home: Path) -> None:
    study = create_study(open_store(), make_spec())
    remove = partial(optuna.delete_study, study_name="tiny", storage=study.store.rdb)
    with pytest.raises(EvomergeError, match=r"study 'tiny' in .* was deleted meanwhile"):
        run_trials(study, 3, on_trial=lambda *_: remove())


def test_its_old_name_is_free(make_spec: SpecMaker, home: Path) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 1)
    rename(study)
    other = create_study(open_store(), make_spec())
    run_trials(other, 2)
    run_trials(study, 2)
    assert (study.name, study.finished()) == (NEW, 2)
    assert (other.name, other.finished()) == ("tiny", 2)
    delete_study(open_store(), NEW)
    assert optuna.get_all_study_names(other.store.rdb) == ["tiny"]


@pytest.mark.parametrize("trial", ["best", "2"])
def test_every_command_knows_its_new_name(trial: str, older: Path) -> None:
    """One that an earlier version made, and whose spec has its old name."""
    rename(open_study(open_store(make.URL), "merge"))
    said = command("study", "test", NEW, "--trial", trial)
    assert f"{NEW}: words.accuracy" in said and f"study export {shlex.quote(NEW)}" in said
    assert json.loads(command("study", "show", NEW, "--json"))["spec"]["study"] == NEW
    run_study(NEW, make.URL, trials=10)
    command("study", "export", NEW, "out", "--trial", trial)
    assert f"# {NEW}, trial " in Path("out/README.md").read_text()
    study = open_study(open_store(make.URL), NEW)
    assert [study.finished(), study.spec.study] == [10, NEW]
    note = study_note(study)
    assert note.startswith(f"# {NEW}\n") and f"study export {shlex.quote(NEW)} OUT" in note
    assert "merge" not in optuna.get_all_study_names(study.store.rdb)


def test_no_trial_begins_in_another_study_under_its_old_name(
    make_spec: SpecMaker, home: Path
) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 1)
    study.study.add_trial(create_trial(value=1.0))  # so that samplers are shown the others alone
    study.study.enqueue_trial({})
    trials = study.read()
    rename(study)
    other = create_study(open_store(), make_spec())
    with pytest.raises((KeyError, StorageInternalError)):
        start_waiting_trial(study, trials)
    assert [t.state for t in other.study.get_trials()] == [TrialState.WAITING]
