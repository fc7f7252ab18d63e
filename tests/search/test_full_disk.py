"""Disks that are really full: what is said, what is kept, and how it goes on."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import ExportError
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.export import export
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy, open_study, recipe_of
from tests.conftest import CommandLine, SpecMaker

MEGABYTES = 16


@dataclass(frozen=True)
class Disk:
    """A file system of its own, a few megabytes large."""

    folder: Path

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"

    def fill(self, but: int = 0) -> None:
        """Leaves so many bytes free."""
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                file.truncate(file.tell() - but)

    def free(self) -> None:
        self._ballast.unlink()

    def listing(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {self._ballast.name}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    options = f"size={MEGABYTES}m,mode=777"
    mount = [*root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk cannot be mounted here: it takes root, or sudo without password")
    yield Disk(folder)
    subprocess.run([*root, "umount", "--lazy", str(folder)], check=True)


def test_a_trial_keeps_its_score_when_artifacts_do_not_fit(
    disk: Disk, make_spec: SpecMaker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_ARTIFACTS", str(disk.folder))
    merge_study = create_study(open_store(), make_spec())
    disk.fill()
    said: list[str] = []
    run_trials(merge_study, 3, say=said.append)
    assert [t.state for t in merge_study.trials()] == [TrialState.COMPLETE] * 3
    assert (
        f"trial 0 keeps its score, not its answers: artifacts in {disk.folder}: "
        "no space left; free some"
    ) in said
    assert disk.listing() == set()  # no half of an artifact
    assert merge_study.best() is not None

    disk.free()
    other = create_study(merge_study.store, make_spec(study="other"))
    run_trials(other, 1)
    assert len(disk.listing()) == 2  # its answers on search and on dev


def whole_in_the_end(disk: Disk, merge_study: MergeStudy, trial: FrozenTrial, room: Path) -> None:
    """Exports with ever more space until it fits; before, nothing is there, and it is said why."""
    export(merge_study, trial, room)
    for kilobytes in range(0, 2048, 4):
        disk.fill(but=kilobytes * 1024)
        try:
            export(merge_study, trial, disk.folder / "model")
        except ExportError as error:
            assert str(error) == (
                f"{disk.folder}/model: no space left; nothing was exported: free some, or name "
                "another folder"
            )
            assert disk.listing() == set()
        else:
            break
        finally:
            disk.free()
    assert kilobytes > 40
    files = {path.name: path.read_bytes() for path in (disk.folder / "model").iterdir()}
    assert files == {path.name: path.read_bytes() for path in room.iterdir()}


def test_an_export_that_does_not_fit(
    disk: Disk, make_spec: SpecMaker, home: Path, tmp_path: Path
) -> None:
    merge_study = create_study(open_store(), make_spec())
    run_trials(merge_study, 1)
    whole_in_the_end(disk, merge_study, merge_study.trials()[0], tmp_path / "room")


def _has_its_head_elsewhere(recipe: Recipe) -> bool:
    assert isinstance(recipe, StackRecipe)
    return recipe.head != recipe.steps[-1].model


def test_a_stack_that_does_not_fit(
    disk: Disk, make_spec: SpecMaker, home: Path, tmp_path: Path
) -> None:
    """One whose merge is written first, and whose head after all the rest."""
    stack = {"models": ["merged", "b"], "repeats": 1, "head": "first"}
    merge_study = create_study(open_store(), make_spec(stage="ps+dfs", stack=stack))
    run_trials(merge_study, 6)
    trial = next(t for t in merge_study.trials() if _has_its_head_elsewhere(recipe_of(t)))
    whole_in_the_end(disk, merge_study, trial, tmp_path / "room")


def test_an_export_that_does_not_fit_in_one_line(
    disk: Disk, make_spec: SpecMaker, command_line: CommandLine
) -> None:
    run_trials(create_study(open_store(), make_spec()), 1)
    disk.fill(but=40 * 1024)
    out, err = command_line.run("study", "export", "tiny", str(disk.folder / "model"), code=1)
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"Error: {disk.folder}/model: no space left; ")
    assert disk.listing() == set()


@pytest.mark.parametrize("kilobytes", [0, 512])
def test_a_database_that_fills_its_disk(
    disk: Disk, make_spec: SpecMaker, command_line: CommandLine, kilobytes: int
) -> None:
    url = f"sqlite:///{disk.folder}/studies.db"
    begun = create_study(open_store(url), make_spec(trials=16))
    run_trials(begun, 3)
    before = [(t.params, t.values) for t in begun.trials()]
    begun.store.rdb.engine.dispose()
    disk.fill(but=kilobytes * 1024)

    _, err = command_line.run("study", "run", "tiny", "--storage", url, code=1)
    said = err.splitlines()[-1]
    assert said.startswith(f"Error: storage {url}: ")
    assert " full" in said and "free some space and run again: every finished trial is kept" in said
    assert "Traceback" not in err
    if kilobytes:  # SQLite needs some 32 for its index, to read at all
        kept = open_study(open_store(url), "tiny")
        assert [(t.params, t.values) for t in kept.trials()][:3] == before
        kept.store.rdb.engine.dispose()

    disk.free()
    command_line.run("study", "run", "tiny", "--storage", url)
    resumed = open_study(open_store(url), "tiny")
    assert [t.state for t in resumed.trials()] == [TrialState.COMPLETE] * 16
    whole = create_study(open_store(), make_spec(study="whole", trials=16))
    run_trials(whole, 16)
    assert [(t.params, t.values) for t in resumed.trials()] == [
        (t.params, t.values) for t in whole.trials()
    ]
