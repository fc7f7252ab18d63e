"""Hypervolumes that are known, and those that Optuna draws."""

import warnings

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge_optuna.results.hypervolume import hypervolume


def test_known_volumes() -> None:
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (4, 4)) == 6
    assert hypervolume([(1, 3), (1, 3), (4, 0), (5, 5)], (4, 4)) == 3
    assert hypervolume([(0, 0, 1), (1, 0, 0), (0, 1, 0)], (2, 2, 2)) == 7
    assert hypervolume([], (1, 1)) == 0


Fronts = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.tuples(*[st.integers(0, 6)] * n), min_size=1, max_size=6)
)


@given(Fronts)
def test_a_grid_counts_the_same_cells(points: list[tuple[int, ...]]) -> None:
    size = len(points[0])
    cells: list[tuple[int, ...]] = [()]
    for _ in range(size):
        cells = [(*cell, x) for cell in cells for x in range(5)]
    dominated = sum(
        any(all(x <= c for x, c in zip(point, cell, strict=True)) for point in points)
        for cell in cells
    )
    assert hypervolume(points, (5,) * size) == dominated


@settings(max_examples=5)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_what_optuna_draws(points: list[tuple[float, float]]) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in points:
        study.add_trial(optuna.trial.create_trial(values=values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = optuna.visualization.plot_hypervolume_history(study, [-0.5, 1.5])
    found = hypervolume([(-a, b) for a, b in points], (0.5, 1.5))
    assert found == pytest.approx(figure.data[0].y[-1])
