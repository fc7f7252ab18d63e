"""A command reads a study's trials once, and answers all questions from what it has read.

Covers study.trials and the snapshot of study.studies.
"""

from collections import Counter
from pathlib import Path

import optuna
import pytest

from evomerge_optuna import export
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.studies import open_study
from tests.data.older import make
from tests.older import STUDIES, command
from tests.older import older as older


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the trials of each study were read, by its name."""
    found: Counter[str] = Counter()
    get_trials = optuna.Study.get_trials

    def counted(self: optuna.Study, *given: object, **named: object) -> object:
        found[self.study_name] += 1
        return get_trials(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(optuna.Study, "get_trials", counted)
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("study", "list"),
        ("study", "show", "merge"),
        ("study", "show", "both"),
        ("study", "show", "both", "--json"),
        ("study", "answers", "merge"),
        ("study", "compare", "merge", "path", "both"),
        ("study", "export", "merge", "out"),
        ("study", "export", "both", "out", "--trial", "knee"),
        ("study", "figure", "both", "--trial", "1"),
    ],
)
def test_trials_are_read_once(arguments: tuple[str, ...], older: Path, reads: Counter[str]) -> None:
    assert command(*arguments)
    named = [name for name in STUDIES if name in arguments] or STUDIES
    assert reads == dict.fromkeys(named, 1)


def test_the_page_is_written_from_one_look(older: Path, reads: Counter[str]) -> None:
    describe_study(open_study(open_store(make.URL), "both"))
    assert reads == {"both": 1}


def test_from_python(older: Path, reads: Counter[str]) -> None:
    export("path", "out", make.URL)
    assert reads == {"path": 1}


def test_what_was_read_stays(older: Path) -> None:
    study = open_study(open_store(make.URL), "merge")
    before = study.as_read()
    study.study.enqueue_trial({"a.weight.g0": 1.0})
    study.study.set_user_attr("prompts", {})
    assert len(study.read().everything) == len(before.read().everything) + 1
    assert before.attributes()["prompts"] != study.attributes()["prompts"] == {}
    assert before.best() == study.best()
