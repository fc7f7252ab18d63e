"""A search begins with the merges that people try by hand."""

from typing import Any

import pytest

from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spec import ParameterStudySpec
from tests.conftest import SpecMaker


def space_of(make_spec: SpecMaker, aliases: str, **merge: Any) -> ParameterSpace:
    spec = make_spec(models={alias: f"/models/{alias}" for alias in aliases}, merge=merge)
    assert isinstance(spec, ParameterStudySpec)
    return ParameterSpace.of(spec, 4)


def test_all_every_pair_and_each_alone(make_spec: SpecMaker) -> None:
    starts = space_of(make_spec, "abc", method="ties", weight=[0, 2]).starts()
    weights = {
        name: [values[f"{alias}.weight.g0"] for alias in "abc"] for name, values in starts.items()
    }
    assert weights == {
        "all at 0.5": [0.5, 0.5, 0.5],
        "all at 1": [1, 1, 1],
        "a + b at 1": [1, 1, 0],
        "a + c at 1": [1, 0, 1],
        "b + c at 1": [0, 1, 1],
        "a at 1": [1, 0, 0],
        "b at 1": [0, 1, 0],
        "c at 1": [0, 0, 1],
    }
    assert {values["b.density.g0"] for values in starts.values()} == {0.75}


def test_each_is_tried_once(make_spec: SpecMaker) -> None:
    assert list(space_of(make_spec, "a", method="ties").starts()) == ["all at 0.5", "all at 1"]
    # Of two models the uniform merge has all at 0.5, and a pair is all of them.
    linear = space_of(make_spec, "ab", method="linear")
    assert list(linear.starts()) == ["all at 1", "a at 1", "b at 1"]


@pytest.mark.parametrize(
    ("searched", "value"),
    [([0.2, 0.6], 0.6), ({"choices": [0.2, 0.5]}, 0.5), ([0.1, 1.0], 0.75)],
)
def test_density_is_as_near_as_its_range_allows(
    searched: Any, value: float, make_spec: SpecMaker
) -> None:
    starts = space_of(make_spec, "ab", method="ties", density=searched).starts()
    assert starts["all at 1"]["a.density.g0"] == value


def test_everything_else_is_in_the_middle(make_spec: SpecMaker) -> None:
    merge = {"method": "ties", "lambda": [0.5, 2.5], "normalize": [True, False]}
    start = space_of(make_spec, "ab", **merge).starts()["all at 1"]
    assert (start["merge.lambda.g0"], start["merge.normalize.g0"]) == (1.5, True)
    near = space_of(make_spec, "a", method="nearswap", t={"log": [1e-6, 1e-2]})
    assert list(near.starts().values()) == [{"a.t.g0": 1e-2}]
    shared = space_of(make_spec, "ab", method="sce", select_topk={"log": [0.01, 1]})
    assert list(shared.starts().values()) == [{"merge.select_topk.g0": pytest.approx(0.1)}]


def test_models_that_may_be_left_out_are(make_spec: SpecMaker) -> None:
    start = space_of(make_spec, "abc", method="ties", include="search").starts()["a + c at 1"]
    assert [start[f"{alias}.include"] for alias in "abc"] == [True, False, True]


def test_every_start_is_in_the_ranges(make_spec: SpecMaker) -> None:
    for merge in (
        {"method": ["ties", "della", "slerp"][:2]},
        {"method": "sce"},
        {"method": "dare_ties", "weight": [0.6, 0.8], "interpolate": 3},
    ):
        space = space_of(make_spec, "ab", **merge)
        for values in space.starts().values():
            assert all(found.has(values[name]) for name, found in space.ranges().items())
            space.recipe(values)
