"""Rows are divided so that no row is in two splits, and all names of splits are known."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.errors import UsageError
from evomerge_optuna.proposal.splits import divided, of_splits, part_of, split_named


@given(st.integers(4, 5000))
def test_no_row_is_in_two_splits(rows: int) -> None:
    seen: set[int] = set()
    parts = divided(rows)
    for part in parts.values():
        ends = re.fullmatch(r"train\[(\d*):(\d*)\]", part)
        assert ends is not None
        own = set(range(int(ends[1] or 0), int(ends[2] or rows)))
        assert own and not own & seen and max(own) < rows
        seen |= own
    assert {"search", "test"} <= set(parts)


def test_too_few_rows() -> None:
    with pytest.raises(UsageError, match="has 3 rows"):
        divided(3)


def test_splits_by_their_names() -> None:
    found = of_splits({"train": 900, "validation": 50, "test": 80})
    assert {split: part_of(*part) for split, part in found.items()} == {
        "search": "train[:200]",
        "dev": "validation",
        "test": "test",
    }
    assert split_named("Val") == "dev" and split_named("problems") is None
