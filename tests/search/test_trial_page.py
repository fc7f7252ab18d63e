"""A trial waits for a person's score, given through the dashboard's own web application.

Covers evaluation.person, too.
"""

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._form_widget import FORM_WIDGETS_KEY

from evomerge_optuna.errors import Interrupted, UsageError
from evomerge_optuna.run import Face, Limits, run_study
from evomerge_optuna.spec import load_spec
from evomerge_optuna.store.artifacts import attached
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.optuna_internals import study_attributes, trial_id
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import HUMAN, REPEATS
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import CommandLine, dashboard_of, wait_until
from tests.pipelines import save_pipeline, save_variant

TARGET = "pictures.taste"
ROWS = [{"prompt": "a red circle"}, {"prompt": "a blue square"}]


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    base = save_pipeline(models / "base")
    for seed, name in enumerate("ab", 1):
        save_variant(base, models / name, seed)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    content = {
        "study": "taste",
        "stage": "ps",
        "base_model": str(base),
        "models": {name: str(models / name) for name in "ab"},
        "merge": {"method": "task_arithmetic", "weight": [0, 1]},
        "trials": 2,
        "tasks": {
            "pictures": {
                "type": "image",
                "data": {"search": {"path": str(tmp_path / "rows.jsonl")}},
                "steps": 1,
                "guidance": 1,
                "scorers": {"taste": {"type": "human", "choices": {"no": 0, "yes": 1}}},
            }
        },
        "objectives": [{"maximize": TARGET}],
    }
    file = tmp_path / "taste.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'taste.db'}"


@cache
def store_at(url: str) -> Store:
    return open_store(url)


def waiting(url: str) -> FrozenTrial | None:
    """The running trial to which pictures are attached."""
    try:
        trials = open_study(store_at(url), "taste").read().of(TrialState.RUNNING)
    except UsageError:  # the study is being made
        return None
    asked = [t for t in trials if any(key.startswith("artifacts:") for key in t.system_attrs)]
    return asked[0] if asked else None


def choose(url: str, trial: FrozenTrial, score: float) -> None:
    """As the page does it when a choice is submitted."""
    address = f"{dashboard_of(store_at(url))}api/trials/{trial_id(trial)}/user-attrs"
    body = json.dumps({"user_attrs": {HUMAN + TARGET: score}}).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(address, body, headers)).close()


def wait_for_question(url: str, lives: Callable[[], bool], after: int = -1) -> FrozenTrial:
    """The trial that waits, whose number is above `after`; `lives` says whether the study runs."""
    found: list[FrozenTrial] = []

    def is_there() -> bool:
        trial = waiting(url)
        found[:] = [trial] if trial is not None and trial.number > after else []
        return bool(found)

    wait_until(is_there, lives)
    return found[0]


def person(url: str, *does: Callable[[FrozenTrial], None]) -> None:
    """In a thread, someone does one thing with each trial that waits, in their order."""

    def act() -> None:
        after = -1
        for do in does:
            trial = wait_for_question(url, lambda: True, after)
            do(trial)
            after = trial.number

    Thread(target=act, daemon=True).start()


def run(spec_file: Path, url: str, **limits: Any) -> tuple[MergeStudy, list[str]]:
    """The study in this process, and the lines that it said."""
    said: list[str] = []
    face, spec = Face(say=said.append), load_spec(spec_file)
    return run_study(store_at(url), spec, Limits(**limits), face=face), said


def test_a_study_goes_on_once_a_person_has_chosen(spec_file: Path, url: str, home: Path) -> None:
    person(url, lambda trial: choose(url, trial, 1), lambda trial: choose(url, trial, 0))
    study, said = run(spec_file, url)
    assert [trial.values for trial in study.trials()] == [[1], [0]]
    assert result_of(study.trials()[0]).scores[TARGET].n == 1
    asked = [line for line in said if line.startswith("trial 0 waits for your score")]
    assert TARGET in asked[0] and "study 'taste', trial 0 (evomerge-optuna dash" in asked[0]
    (widget,) = study_attributes(study.study)[FORM_WIDGETS_KEY]["widgets"]
    assert (widget["choices"], widget["values"]) == (["no", "yes"], [0, 1])
    assert widget["user_attr_key"] == HUMAN + TARGET
    (png,) = [n for n, _ in attached(study.trials()[1].system_attrs) if n.endswith(".png")]
    assert png == f"pictures-{TARGET}.png"


def test_a_trial_that_was_interrupted_is_asked_about_again(
    spec_file: Path, url: str, home: Path
) -> None:
    person(url, lambda _: os.kill(os.getpid(), signal.SIGINT), lambda t: choose(url, t, 1))
    with pytest.raises(Interrupted):
        run(spec_file, url, trials=1)
    study, _ = run(spec_file, url, trials=1)
    first, again = study.read().everything
    assert (first.state, again.values) == (TrialState.FAIL, [1])
    assert again.user_attrs[REPEATS] == first.number and again.params == first.params


def test_a_score_is_not_asked_for_twice(
    spec_file: Path, url: str, command_line: CommandLine
) -> None:
    process = command_line.start("study", "run", str(spec_file), "--storage", url, "--trials", "1")
    trial = wait_for_question(url, lambda: process.poll() is None)
    os.kill(process.pid, signal.SIGSTOP)  # it dies before it reads the score
    choose(url, trial, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    study, said = run(spec_file, url, trials=1)
    assert [trial.state for trial in study.read().everything] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
    ]
    assert [trial.values for trial in study.trials()] == [[1]]
    assert not any("waits for your score" in line for line in said)
