"""A study stopped anywhere and resumed is trial for trial the study that was never stopped.

Covers search.requeue and study.trials, too.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import INTERRUPTED, REPEATS
from evomerge_optuna.study.studies import open_study
from tests.conftest import CommandLine, wait_until
from tests.gate import Gate

TRIALS = 10


@pytest.fixture
def spec_file(tmp_path: Path, gate: Gate, spec_content: Callable[..., dict[str, Any]]) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(gate.before(spec_content(trials=TRIALS))))
    return file


def stop_after(process: Any, gate: Gate, trials: int, number: int) -> str:
    """Sends a signal in the middle of the trial after so many; returns what was printed."""
    gate.let(trials)
    wait_until(
        lambda: gate.passed() == gate.passes and gate.waiting() == 1,
        lambda: process.poll() is None,
    )
    os.kill(process.pid, number)
    return "".join(process.communicate())


def outcome(url: str) -> list[tuple[dict[str, float], list[float], str]]:
    """What a study came to: parameters, score and merged tensors of each trial that counts."""
    study = open_study(open_store(url), "tiny")
    return [(t.params, t.values, result_of(t).sha256) for t in study.trials()]


@pytest.mark.parametrize(
    ("kind", "signals"),
    [
        ("sqlite", (signal.SIGKILL, signal.SIGINT)),
        ("postgres", (signal.SIGTERM, signal.SIGKILL)),
    ],
)
def test_resumed_study_equals_the_one_never_stopped(
    kind: str,
    signals: tuple[int, int],
    database: Callable[[str], str],
    gate: Gate,
    spec_file: Path,
    command_line: CommandLine,
    tmp_path: Path,
) -> None:
    storage_url = database(kind)
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    gate.let(TRIALS)
    command_line.run("study", "run", str(spec_file), "--storage", whole)

    at = ("study", "run", str(spec_file), "--storage", storage_url)
    for number in signals:
        said = stop_after(command_line.start(*at), gate, 3, number)
        assert "Traceback" not in said
        assert ("Continue with: evomerge-optuna study run tiny" in said) == (
            number != signal.SIGKILL
        )
    gate.open()
    command_line.run(*at)

    assert len(outcome(storage_url)) == TRIALS
    assert outcome(storage_url) == outcome(whole)

    trials = open_study(open_store(storage_url), "tiny").study.get_trials()
    interrupted = [t.number for t in trials if INTERRUPTED in t.user_attrs]
    repeats = [t.user_attrs[REPEATS] for t in trials if REPEATS in t.user_attrs]
    assert repeats == interrupted
    assert not [t for t in trials if not t.state.is_finished()]

    before = len(trials)
    command_line.run(*at)  # has all it wants: adds nothing
    assert len(open_study(open_store(storage_url), "tiny").study.get_trials()) == before
