"""A folder takes its name when it is whole; what a killed process left is in nobody's way."""

from pathlib import Path

import pytest

from evomerge_optuna.whole_folder import whole_folder


@pytest.mark.parametrize("mark", ["", ".12"])
def test_it_takes_its_name_at_the_end(tmp_path: Path, mark: str) -> None:
    left = tmp_path / f".out{mark}.partial"
    left.mkdir()
    (left / "half").touch()
    with whole_folder(tmp_path / "out", mark) as folder:
        (folder / "whole").touch()
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]


def test_nothing_stays_where_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "in" / "out") as folder:
        (folder / "half").touch()
        raise ZeroDivisionError
    assert list((tmp_path / "in").iterdir()) == []
