"""A new folder is there whole, or not at all."""

import errno
from pathlib import Path

import pytest

from evomerge_optuna.errors import ExportError, UsageError
from evomerge_optuna.new_folder import new_folder


def test_it_takes_its_name_at_the_end(tmp_path: Path) -> None:
    with new_folder(tmp_path / "inner" / "out") as folder:
        (folder / "file").write_text("text")
        assert not (tmp_path / "inner" / "out").exists()
    assert (tmp_path / "inner" / "out" / "file").read_text() == "text"
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_nothing_stays_where_the_block_fails(tmp_path: Path, error: OSError, what: str) -> None:
    with pytest.raises(ExportError, match=what), new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("text")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_block_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "out"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in (".", "link"):
        with pytest.raises(UsageError, match="never overwrites"), new_folder(tmp_path / name):
            pass
