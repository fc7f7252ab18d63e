import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evomerge_optuna.engines import handover
from evomerge_optuna.models.shards import read_tensors

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4)}


@pytest.mark.parametrize("size", [100, 2**60])
def test_tensors_are_there_within_the_block(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_SHARED", tmp_path)
    with handover.written(TENSORS.items(), size) as folder:
        assert (folder.parent == tmp_path) == (size == 100)
        found = dict(read_tensors(folder))
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert not folder.exists()


def test_nothing_is_left_when_the_stream_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_SHARED", tmp_path)
    with (
        pytest.raises(ZeroDivisionError),
        handover.written(((str(1 // n), torch.ones(1)) for n in (1, 0)), 8),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_SHARED", tmp_path)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead = tmp_path / f"evomerge-candidate-{process.pid}-x"
    dead.mkdir()
    other = tmp_path / "evomerge-candidate-others"
    other.mkdir()
    with handover.written(TENSORS.items(), 100) as own:
        handover.remove_leftovers()
        assert own.exists()
    assert sorted(tmp_path.iterdir()) == [other]
