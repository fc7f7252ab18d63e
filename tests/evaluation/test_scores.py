"""Intervals against published values and against their own definition."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.evaluation.scores import Z, mean, proportion


def test_wilson_interval_as_published() -> None:
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3: 81/263 and 0/20.
    score = proportion([True] * 81 + [False] * 182)
    assert (round(score.low, 4), round(score.high, 4)) == (0.2553, 0.3662)
    score = proportion([False] * 20)
    assert (score.low, round(score.high, 4)) == (0.0, 0.1611)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_wilson_interval_by_its_formula(n: int, share: float) -> None:
    right = round(share * n)
    score = proportion([True] * right + [False] * (n - right))
    centre = (score.value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(score.value * (1 - score.value) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    assert score.low == pytest.approx(max(0.0, centre - half), abs=1e-12)
    assert score.high == pytest.approx(min(1.0, centre + half), abs=1e-12)


@given(st.lists(st.booleans(), min_size=1))
def test_a_share_lies_in_its_interval(outcomes: list[bool]) -> None:
    score = proportion(outcomes)
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.n == len(outcomes)


def test_mean_interval() -> None:
    score = mean([1.0, 2.0, 3.0])
    assert score.value == 2
    assert score.high - score.value == pytest.approx(1.96 / 3**0.5, abs=1e-4)
