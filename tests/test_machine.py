"""What of a machine a process takes."""

from pathlib import Path

import psutil
import pytest

from evomerge_optuna.machine import _main_memory

MB = 2**20


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(f"{text}\n")


def test_a_container_has_what_it_is_given(tmp_path: Path) -> None:
    stat = f"anon {5 * MB}\ninactive_file {2 * MB}\nactive_file {MB}"
    write(tmp_path, max=str(20 * MB), current=str(8 * MB), stat=stat)
    assert _main_memory(tmp_path) == (20 * MB, 14 * MB)


def test_a_container_of_the_older_kind(tmp_path: Path) -> None:
    stat = f"inactive_file 0\ntotal_inactive_file {MB}"
    write(tmp_path / "memory", limit_in_bytes=str(9 * MB), usage_in_bytes=str(10 * MB), stat=stat)
    assert _main_memory(tmp_path) == (9 * MB, 0)


@pytest.mark.parametrize("limit", [None, "max", str(2**63)])
def test_no_limit(tmp_path: Path, limit: str | None) -> None:
    if limit is not None:
        write(tmp_path, max=limit, current="0", stat="inactive_file 0")
    memory, free = _main_memory(tmp_path)
    assert memory == psutil.virtual_memory().total
    assert 0 < free <= memory
