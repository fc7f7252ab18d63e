"""A trial waits for a person's score, given through the dashboard's own web application.

Covers evaluation.person, too.
"""

import json
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard._form_widget import FORM_WIDGETS_KEY

from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.optuna_internals import study_attributes, trial_id
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import HUMAN, INTERRUPTED, REPEATS
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


def study_at(url: str) -> MergeStudy:
    return open_study(open_store(url), "taste")


def waiting(url: str) -> FrozenTrial | None:
    """The running trial to which pictures are attached."""
    try:
        trials = study_at(url).read().of(TrialState.RUNNING)
    except Exception:  # the study is being made
        return None
    asked = [t for t in trials if any(key.startswith("artifacts:") for key in t.system_attrs)]
    return asked[0] if asked else None


def choose(url: str, trial: FrozenTrial, score: float) -> None:
    """As the page does it when a choice is submitted."""
    address = f"{dashboard_of(open_store(url))}api/trials/{trial_id(trial)}/user-attrs"
    body = json.dumps({"user_attrs": {HUMAN + TARGET: score}}).encode()
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(address, body, headers)).close()


def wait_for_question(url: str, process: Any) -> FrozenTrial:
    wait_until(lambda: waiting(url) is not None, lambda: process.poll() is None)
    found = waiting(url)
    assert found is not None
    return found


def test_a_study_goes_on_once_a_person_has_chosen(
    spec_file: Path, url: str, command_line: CommandLine
) -> None:
    process = command_line.start("study", "run", str(spec_file), "--storage", url)
    for score in (1, 0):
        choose(url, wait_for_question(url, process), score)
        number = int(score == 0)
        wait_until(
            lambda number=number: len(study_at(url).read().of(TrialState.COMPLETE)) > number,
            lambda: process.poll() is None or study_at(url).finished() == 2,
        )
    said = "".join(process.communicate())
    assert f"trial 0 waits for your score {TARGET}: look at its pictures" in said
    assert "evomerge-optuna dashboard" in said and "Traceback" not in said
    study = study_at(url)
    assert [trial.values for trial in study.trials()] == [[1], [0]]
    assert result_of(study.trials()[0]).scores[TARGET].n == 1
    (widget,) = study_attributes(study.study)[FORM_WIDGETS_KEY]["widgets"]
    assert (widget["choices"], widget["values"]) == (["no", "yes"], [0, 1])
    assert widget["user_attr_key"] == HUMAN + TARGET


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_trial_that_was_waiting_asks_again_after_its_worker_ended(
    number: int, spec_file: Path, url: str, command_line: CommandLine
) -> None:
    at = ("study", "run", str(spec_file), "--storage", url, "--trials", "1")
    process = command_line.start(*at)
    first = wait_for_question(url, process)
    os.kill(process.pid, number)
    assert "Traceback" not in "".join(process.communicate())
    process = command_line.start(*at)
    wait_until(
        lambda: (found := waiting(url)) is not None and found.number != first.number,
        lambda: process.poll() is None,
    )
    again = wait_for_question(url, process)
    assert again.user_attrs[REPEATS] == first.number and again.params == first.params
    choose(url, again, 1)
    process.communicate()
    everything = study_at(url).read().everything
    assert [t.state for t in everything] == [TrialState.FAIL, TrialState.COMPLETE]
    assert INTERRUPTED in everything[0].user_attrs and everything[1].values == [1]


def test_a_score_is_not_asked_for_twice(
    spec_file: Path, url: str, command_line: CommandLine
) -> None:
    at = ("study", "run", str(spec_file), "--storage", url, "--trials", "1")
    process = command_line.start(*at)
    first = wait_for_question(url, process)
    os.kill(process.pid, signal.SIGSTOP)  # it dies before it reads the score
    choose(url, first, 1)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    said = "".join(command_line.run(*at))
    assert study_at(url).trials()[-1].values == [1] and "waits for your score" not in said


