"""`study run` with several workers, told to stop by a scheduler, and from another machine."""

import ipaddress
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState, create_trial

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.run import pace
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.result import Result
from evomerge_optuna.study.schema import RESULT
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import CommandLine, wait_until
from tests.forked import Command
from tests.gate import Gate
from tests.postgres import Postgres, running

TRIALS = 10
NEVER = 100_000  # seconds, and trials


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    def write(content: dict[str, Any]) -> str:
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump(content))
        return str(file)

    return write


def states(study: MergeStudy) -> Counter[TrialState]:
    return Counter(trial.state for trial in study.study.get_trials())


def opened(url: str, command: Command | subprocess.Popen[str]) -> MergeStudy:
    """The study, once the command has made it."""

    def is_there() -> bool:
        with suppress(EvomergeError):
            open_study(open_store(url), "tiny")
            return True
        return False

    wait_until(is_there, lambda: command.poll() is None)
    return open_study(open_store(url), "tiny")


def test_the_pace_is_told_of_a_trial_that_was_scored() -> None:
    result = Result("", "", 1, {}, {}, {"merge": 20.0, "score": 10.5})
    scored = create_trial(value=1.0, user_attrs={RESULT: asdict(result)})
    assert pace(scored, 4) == "the first trial took 30.5 s; 4 more take up to 3 minutes"
    assert pace(scored, 1) == "the first trial took 30.5 s; 1 more take up to a minute"
    repeated = create_trial(value=1.0, user_attrs={RESULT: asdict(replace(result, seconds={}))})
    assert pace(scored, 0) == pace(create_trial(value=1.0), 4) == pace(repeated, 4) == ""


def test_two_commands_of_two_workers_begin_a_study_at_once(
    database: Callable[[str], str],
    write_spec: Callable[[dict[str, Any]], str],
    spec_content: Callable[..., dict[str, Any]],
    command_line: CommandLine,
) -> None:
    storage_url, spec = database("postgres"), write_spec(spec_content(trials=TRIALS))
    at = ("study", "run", spec, "--workers", "2", "--storage", storage_url)
    commands = [command_line.start(*at) for _ in range(2)]
    for command in commands:
        _, said = command.communicate()
        assert command.returncode == 0, said
        assert f"tiny: {TRIALS} trials" in said
    study = open_study(open_store(storage_url), "tiny")
    assert states(study) == {TrialState.COMPLETE: TRIALS}


@pytest.mark.parametrize(("grace", "workers"), [(NEVER, 2), (0, 1)])
def test_told_to_stop(
    grace: int,
    workers: int,
    gate: Gate,
    write_spec: Callable[[dict[str, Any]], str],
    spec_content: Callable[..., dict[str, Any]],
    command_line: CommandLine,
    home: Path,
) -> None:
    url, spec = f"sqlite:///{home / 'evomerge.db'}", write_spec(gate.before(spec_content()))
    options = ("--trials", str(NEVER), "--workers", str(workers), "--grace", str(grace))
    command = command_line.start("study", "run", spec, *options)
    study = opened(url, command)
    gate.let(2)
    wait_until(
        lambda: states(study)[TrialState.COMPLETE] == 2 and gate.waiting() == workers,
        lambda: command.poll() is None,
    )
    command.terminate()
    if grace:
        gate.open()
    _, said = command.communicate()
    assert command.returncode == 130, said
    assert "all are kept. Continue with: evomerge-optuna study run tiny" in said
    assert "Traceback" not in said
    assert states(study)[TrialState.RUNNING] == 0
    assert states(study)[TrialState.FAIL] == (0 if grace else workers)
    gate.open()
    wanted = study.finished() + 3
    command_line.run("study", "run", "tiny", "--trials", str(wanted), "--allow-code")
    assert study.finished() == wanted
    assert {t.state for t in study.trials()} == {TrialState.COMPLETE}


@dataclass(frozen=True)
class Network:
    """A network of its own, as another machine's, with a cable to this one."""

    name: str
    here: str  # the addresses of both ends
    there: str


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("making a network needs root and iproute2")
    # Names and addresses of this process alone; the addresses are kept free for tests (RFC 2544).
    number = os.getpid() % 2**15
    cable, end = f"evo{number}", f"evo{number}x"
    first = ipaddress.ip_network("198.18.0.0/15")[4 * number + 1]
    made = Network(f"evomerge{number}", str(first), str(first + 1))

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)

    # What a killed run left: the cable goes with either end.
    subprocess.run(["ip", "netns", "delete", made.name], capture_output=True)
    ip("netns", "add", made.name)
    try:
        ip("link", "add", cable, "type", "veth", "peer", end, "netns", made.name)
        ip("addr", "add", f"{made.here}/30", "dev", cable)
        ip("link", "set", cable, "up")
        ip("-n", made.name, "addr", "add", f"{made.there}/30", "dev", end)
        ip("-n", made.name, "link", "set", end, "up")
        yield made
    finally:
        ip("netns", "delete", made.name)


@pytest.fixture
def server(network: Network) -> Iterator[Postgres]:
    """A PostgreSQL server at an address of its own."""
    rules = f"host all all {network.there}/32 trust\n"
    with running(address=network.here, port=54329, rules=rules) as started:
        yield started


def test_a_worker_elsewhere_needs_the_database_alone(
    server: Postgres,
    network: Network,
    write_spec: Callable[[dict[str, Any]], str],
    spec_content: Callable[..., dict[str, Any]],
    command_line: CommandLine,
    tiny: Path,
) -> None:
    socket = server.url
    over_tcp = f"postgresql://postgres@{network.here}:{server.port}/postgres"
    spec = write_spec(spec_content(trials=TRIALS))
    command_line.run("study", "run", spec, "--trials", "3", "--storage", socket)
    Path(spec).unlink()

    there = ("ip", "netns", "exec", network.name)
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
