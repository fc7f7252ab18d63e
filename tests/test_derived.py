"""Folders made of others: written once, whole, and nothing of a killed process stays."""

import threading
from pathlib import Path

import pytest

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import SpecError


def test_what_a_killed_process_left_goes(home: Path) -> None:
    left = home / "models" / ".text-key.partial"
    left.mkdir(parents=True)
    (left / "half").touch()
    folder = derived_folder("text", "key", lambda place: (place / "whole").touch())
    assert [file.name for file in folder.iterdir()] == ["whole"]
    assert not left.exists()


def test_what_fails_is_not_there(home: Path) -> None:
    def fail(place: Path) -> None:
        (place / "half").touch()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        derived_folder("text", "key", fail)
    assert {path.suffix for path in (home / "models").iterdir()} <= {".lock"}


@pytest.mark.parametrize("name", ["a@b", "a+b"])
def test_where_mergekit_would_read_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / name))
    with pytest.raises(SpecError, match="set EVOMERGE_HOME to another folder"):
        derived_folder("text", "key", lambda place: None)
    assert not (tmp_path / name).exists()


def test_one_writes_and_the_others_wait(home: Path) -> None:
    written, begun = [], threading.Barrier(4)

    def write(place: Path) -> None:
        written.append(place)
        (place / "file").touch()

    def make() -> None:
        begun.wait()
        assert (derived_folder("text", "key", write) / "file").is_file()

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1
