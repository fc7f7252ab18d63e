"""Optuna's own names do here what they did in the versions that they were read in."""

import pickle
import re
import sqlite3
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

import evomerge_optuna
from evomerge_optuna.store import optuna_internals as internals

PACKAGE = Path(evomerge_optuna.__file__).parent
X = {"x": FloatDistribution(-1, 1)}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    rdb = RDBStorage(f"sqlite:///{tmp_path / 'studies.db'}")
    return optuna.create_study(storage=rdb, study_name="a")


def test_the_version_is_one_that_was_read() -> None:
    assert version("optuna") in internals.READ_IN


def test_nobody_else_names_what_is_optunas_own() -> None:
    private = re.compile(
        r"\b(study|trial|frozen|recorded|race|t|s)\._(?!replace)[a-z]"  # of an object
        r"|\boptuna(\.\w+)*\._\w|from optuna\S* import _|self\._(attr_key_|concat_|x0\b)"
    )
    found = {
        f"{file.relative_to(PACKAGE)}: {line.strip()}"
        for file in PACKAGE.rglob("*.py")
        for line in file.read_text().splitlines()
        if private.search(line) and file.name != "optuna_internals.py"
    }
    assert found == set()


def test_ids(study: optuna.Study, tmp_path: Path) -> None:
    trial = study.ask()
    (frozen,) = study.get_trials()
    assert internals.trial_id(trial) == internals.trial_id(frozen)
    (summary,) = optuna.storages.get_storage(
        f"sqlite:///{tmp_path / 'studies.db'}"
    ).get_all_studies()
    assert internals.study_id(study) == internals.study_id(summary)


def test_attributes_of_a_study(study: optuna.Study, tmp_path: Path) -> None:
    internals.set_study_attribute(study, "note", {"text": 1})
    assert internals.study_attributes(study) == {"note": {"text": 1}}
    (tmp_path / "file").write_text("text")
    store = FileSystemArtifactStore(tmp_path)
    name = upload_artifact(
        artifact_store=store, file_path=str(tmp_path / "file"), study_or_trial=study
    )
    assert internals.ARTIFACT + name in internals.study_attributes(study)


def test_a_study_that_is_gone(study: optuna.Study) -> None:
    internals.require_study(study)
    optuna.delete_study(study_name="a", storage=study._storage)
    with pytest.raises(KeyError) as raised:
        internals.require_study(study)
    assert raised.value.args == (internals.NO_RECORD,)


def test_a_trial_is_stored_whole(study: optuna.Study) -> None:
    given = create_trial(
        state=TrialState.RUNNING,
        params={"x": 0.5},
        distributions=X,
        user_attrs={"recipe": {}},
        system_attrs={"cma:generation": 1},
    )
    trial = internals.add_running_trial(study, given)
    (stored,) = study.get_trials()
    assert (trial.number, trial.params) == (stored.number, stored.params) == (0, {"x": 0.5})
    assert (stored.user_attrs, stored.system_attrs) == (given.user_attrs, given.system_attrs)
    assert trial.suggest_float("x", -1, 1) == 0.5
    internals.set_trial_attribute(study, stored, "error", "none")
    assert study.get_trials()[0].user_attrs["error"] == "none"
    assert not internals.is_finished(study, trial)
    optuna.load_study(study_name="a", storage=study._storage).tell(0, 1.0)
    assert internals.is_finished(study, trial)
    with pytest.raises(UpdateFinishedTrialError):
        internals.set_trial_attribute(study, stored, "error", "again")


def test_what_was_enqueued(study: optuna.Study) -> None:
    study.enqueue_trial({"x": 0.25})
    (waiting,) = study.get_trials()
    assert waiting.system_attrs[internals.ENQUEUED] == {"x": 0.25}


@pytest.mark.parametrize(
    ("sampler", "first"),
    [
        (optuna.samplers.CmaEsSampler(seed=1, popsize=4), "cma:generation"),
        (optuna.samplers.NSGAIISampler(seed=1, population_size=4), "NSGAIISampler:generation"),
    ],
)
def test_the_state_of_a_sampler(sampler: Any, first: str, study: optuna.Study) -> None:
    study.sampler = sampler
    study.enqueue_trial({"x": 0.25})
    study.optimize(
        lambda trial: trial.suggest_float("x", -1, 1) + trial.suggest_float("y", 0, 1), 9
    )
    kept = [internals.sampler_state(trial) for trial in study.get_trials()]
    assert all(first in state for state in kept[1:])
    assert any("cma:optimizer:0" in state for state in kept) == (first == "cma:generation")
    assert not any(internals.ENQUEUED in state for state in kept)


def test_a_study_with_given_trials(study: optuna.Study) -> None:
    for value in (1.0, 2.0):
        study.add_trial(create_trial(value=value, params={"x": 0.1}, distributions=X))
    first, second = study.get_trials(deepcopy=False)
    written: dict[str, Any] = {}
    seen: list[int] = []

    class Sampler(optuna.samplers.RandomSampler):
        def sample_relative(self, study: optuna.Study, trial: Any, space: Any) -> dict[str, Any]:
            seen.extend(t.number for t in study._get_trials(deepcopy=False, use_cache=True))
            return {}

    study.sampler = Sampler()
    asked = internals.with_trials(study, [second]).ask()
    assert (asked.number, -1 <= asked.suggest_float("x", -1, 1) <= 1) == (2, True)
    assert seen == [1]
    internals.set_study_attribute(internals.with_trials(study, [first], written), "note", 1)
    assert internals.study_attributes(study) == {"note": 1}
    running = internals.with_trials(study, [first], written)
    internals.set_sampler_attribute(running, second, "cma:generation", 3)
    assert written == {"cma:generation": 3}
    assert study.get_trials()[1].system_attrs == {}


def test_cmaes_with_other_parts(study: optuna.Study) -> None:
    restored: list[int] = []
    drawn: list[int] = []

    class Sampler(internals.OpenCmaEsSampler):
        def restore(self, state: str) -> Any:
            found = pickle.loads(bytes.fromhex(state))
            restored.append(found.generation)
            return found

        def as_drawn(self, trial: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
            drawn.append(trial.number)
            return trial

    def run(sampler: optuna.samplers.BaseSampler, study: optuna.Study) -> list[dict[str, Any]]:
        study.sampler = sampler
        study.optimize(lambda t: t.suggest_float("x", -1, 1) * t.suggest_float("y", 0, 1), 12)
        return [trial.params for trial in study.get_trials()]

    plain = optuna.samplers.CmaEsSampler(seed=1, popsize=4)
    assert run(Sampler(seed=1, popsize=4), study) == run(plain, optuna.create_study())
    assert restored[-1] == 2 and {1, 2, 3} <= set(drawn)
    # Of a repeat of an old trial Optuna would take the state, for it is the latest.
    late = study.get_trials()[5]
    assert internals.sampler_state(late).keys() > {"cma:generation"}
    study.add_trial(late)
    study.ask()
    space = {**X, "y": FloatDistribution(0, 1)}
    study.sampler.sample_relative(study, study.get_trials()[-1], space)
    assert restored[-1] == 2


def test_a_quasi_random_sampler_whose_place_is_said(study: optuna.Study) -> None:
    class Sampler(internals.OpenQMCSampler):
        def place(self, study: optuna.Study) -> int:
            return 5

    def drawn(sampler: optuna.samplers.QMCSampler) -> list[dict[str, Any]]:
        known = dict.fromkeys("xy", FloatDistribution(0, 1))
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        return [sampler.sample_relative(study, trial, known) for _ in range(6)]

    assert drawn(Sampler()) == [drawn(optuna.samplers.QMCSampler())[5]] * 6


def test_tables_of_another_version(tmp_path: Path) -> None:
    file = tmp_path / "older.db"
    url = f"sqlite:///{file}"
    RDBStorage(url).engine.dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v2.6.0.a'")
    with pytest.raises(RuntimeError) as raised:
        RDBStorage(url)
    assert internals.is_of_another_schema(raised.value) and internals.can_be_upgraded(raised.value)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")
    with pytest.raises(RuntimeError) as raised:
        RDBStorage(url)
    assert internals.is_of_another_schema(raised.value)
    assert not internals.can_be_upgraded(raised.value)


def test_trials_are_served_beside_other_services(study: optuna.Study) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from optuna.storages import GrpcStorageProxy

    server = grpc.server(ThreadPoolExecutor(2))
    internals.serve_trials(study._storage, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        proxy = GrpcStorageProxy(host="127.0.0.1", port=port)
        proxy.wait_server_ready(30)
        assert optuna.load_study(study_name="a", storage=proxy).get_trials() == []
        with pytest.raises(KeyError):
            proxy.get_study_id_from_name("no such study")
        proxy.remove_session()
    finally:
        server.stop(None)
