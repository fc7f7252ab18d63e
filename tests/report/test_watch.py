"""A study that another process runs is watched until it ends, and nothing is written to it.

Covers cli.studies, too.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState, create_trial

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.report.watch import watch
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.renamed import identify
from evomerge_optuna.study.studies import MergeStudy, delete_study, open_study
from evomerge_optuna.study.trials import Trials
from tests.conftest import CommandLine, SpecMaker
from tests.study.test_renamed import NEW, rename


@pytest.fixture
def begun(home: Path, make_spec: SpecMaker) -> MergeStudy:
    return create_study(open_store(), make_spec(trials=3))


def watched() -> MergeStudy:
    """The same study, opened by somebody else."""
    return open_study(open_store(), "tiny")


class Watcher:
    """Looks, and between two looks has others do something."""

    def __init__(self, *others: Callable[[], object]) -> None:
        self.others = list(others)
        self.shown: list[tuple[str, int, int]] = []
        self.said: list[str] = []

    def watch(self) -> str:
        return watch(watched(), self.show, self.said.append, self.wait)

    def show(self, name: str, trials: Trials, wanted: int) -> None:
        self.shown.append((name, trials.finished, wanted))

    def wait(self) -> None:
        assert len(self.shown) < 20, "it should have ended"
        if self.others:
            self.others.pop(0)()


def test_it_ends_when_the_study_does(begun: MergeStudy) -> None:
    watcher = Watcher(lambda: run_trials(begun, 1), lambda: run_trials(begun, 3))
    last = watcher.watch()
    assert [finished for _, finished, _ in watcher.shown][:3] == [0, 1, 3]
    assert last.startswith("tiny: 3 trials; best words.perplexity ")


def test_a_rename_is_followed(begun: MergeStudy) -> None:
    run_trials(begun, 1)  # whoever runs a study gives it what it has under every name
    watcher = Watcher(lambda: rename(watched()), lambda: run_trials(begun, 3))
    last = watcher.watch()
    assert {name for name, _, _ in watcher.shown} == {"tiny", NEW}
    assert last.startswith(f"{NEW}: 3 trials; ")


def test_nothing_is_written(begun: MergeStudy, home: Path) -> None:
    run_trials(begun, 3)
    before = (home / "evomerge.db").read_bytes()
    Watcher().watch()
    assert (home / "evomerge.db").read_bytes() == before


def test_a_study_that_nobody_runs_is_told_once(begun: MergeStudy) -> None:
    nothing: list[Callable[[], object]] = [lambda: None] * 4
    watcher = Watcher(*nothing, lambda: run_trials(begun, 3))
    watcher.watch()
    (line,) = [line for line in watcher.said if "no trial of tiny is running" in line]
    assert line.endswith("evomerge-optuna study run tiny")


def test_a_trial_that_takes_long_is_told_once(begun: MergeStudy) -> None:
    run_trials(begun, 2)
    stuck = create_trial(state=TrialState.RUNNING)
    stuck.datetime_start = datetime.now() - timedelta(hours=3)
    begun.study.add_trial(stuck)
    running = begun.study.get_trials()[-1]

    def end() -> None:
        begun.study.tell(running.number, state=TrialState.FAIL)
        run_trials(begun, 3)

    watcher = Watcher(lambda: None, end)
    watcher.watch()
    (line,) = [line for line in watcher.said if "its worker alive" in line]
    assert line.startswith(
        f"trial {running.number} has been running for 3 h 00 min, and others took"
    )


def test_a_study_that_is_deleted_meanwhile(begun: MergeStudy) -> None:
    identify(begun)
    with pytest.raises(EvomergeError, match="was deleted meanwhile"):
        Watcher(lambda: delete_study(begun.store, "tiny")).watch()


def test_a_line_for_each_change_without_a_terminal(
    command_line: CommandLine,
    tmp_path: Path,
    spec_content: Callable[..., dict[str, Any]],
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(spec_content(trials=2)))
    command_line.run("study", "run", str(file), "--trials", "1")
    watching = command_line.start("study", "watch", "tiny")
    assert watching.stderr is not None
    assert watching.stderr.readline().startswith("tiny: 1/2 trials; ")
    command_line.run("study", "run", "tiny")
    out, said = watching.communicate()
    assert watching.returncode == 0
    assert "tiny: 2/2 trials; " in said and out.startswith("tiny: 2 trials; best ")

    file.write_text(yaml.safe_dump(spec_content(trials=9)))
    command_line.run("study", "run", str(file), "--trials", "2")
    watching = command_line.start("study", "watch", "tiny")
    assert watching.stderr is not None
    assert watching.stderr.readline().startswith("tiny: 2/9 trials; ")
    watching.terminate()  # as Ctrl-C does
    out, _ = watching.communicate()
    assert watching.returncode == 0
    assert out == "Stopped watching tiny; its run goes on wherever it is.\n"
