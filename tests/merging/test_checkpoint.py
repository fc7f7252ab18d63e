"""A model from files: its files stay until the next one is made, and none is left behind."""

from pathlib import Path

from evomerge_optuna.merging.checkpoint import scratch_folder


def test_scratch_is_removed_with_the_leftovers_of_dead_workers(home: Path) -> None:
    with scratch_folder() as folder:
        root, host = folder.parent.parent, folder.parent.name.rpartition("-")[0]
        dead, alive = (root / f"{host}-{pid}" for pid in (2**22 + 1, 1))
        neighbour = root / f"{host}-2-{2**22 + 1}"  # of the host "HOST-2"
        for other in (dead, alive, neighbour):
            other.mkdir()
        (folder / "file").touch()
    assert not folder.parent.exists()
    with scratch_folder():
        assert alive.exists() and neighbour.exists() and not dead.exists()
