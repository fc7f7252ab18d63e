"""The zoo's data sets as a spec names them."""

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.rows import load_rows
from evomerge_optuna.spec import DataSource
from evomerge_optuna.zoo.data import ZOO_DATA, ZOO_SPLITS


@pytest.mark.parametrize("name", ZOO_DATA)
def test_each_has_the_splits(name: str) -> None:
    sizes = [160, 160, 320] if name == "zoo:scenes" else [200, 200, 500]
    assert [len(ZOO_DATA[name](split)) for split in ZOO_SPLITS] == sizes


def test_rows_have_their_places() -> None:
    place, row = load_rows(DataSource(path="zoo:problems", split="dev"), "tasks.t.data.dev")[1]
    assert place == "tasks.t.data.dev: zoo:problems, row 2"
    assert row == ZOO_DATA["zoo:problems"]("dev")[1]


def test_a_split_that_it_has_not() -> None:
    with pytest.raises(SpecError, match="zoo:problems has the splits search, dev, test"):
        load_rows(DataSource(path="zoo:problems", split="train"), "tasks.t.data.dev")
