"""What a parameter may be: a number, a range, a range of logarithms, or choices."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import Choices, Dimension, Range, parse_spec
from evomerge_optuna.spec.dimension import DIMENSIONS

NUMBER, INTEGER, SWITCH = (TypeAdapter[Dimension](DIMENSIONS[kind]) for kind in (float, int, bool))


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (0.5, Range(0.5, 0.5)),
        ([0, 1], Range(0, 1)),
        ({"log": [1e-6, 0.1]}, Range(1e-6, 0.1, log=True)),
        ([0, 0.5, 1], Choices((0, 0.5, 1))),
        ({"choices": [1, 0]}, Choices((1, 0))),
        ({"choices": [0.1, 1, 2]}, Choices((0.1, 1, 2))),
    ],
)
def test_what_a_number_may_be(written: object, found: Dimension) -> None:
    assert NUMBER.validate_python(written) == found


def test_what_a_switch_may_be() -> None:
    assert SWITCH.validate_python(True) == Choices((True,))
    assert SWITCH.validate_python([True, False]) == Choices((True, False))
    assert SWITCH.validate_python({"choices": [False, True]}) == Choices((False, True))


def test_integers_stay_integers() -> None:
    found = INTEGER.validate_python([1, 8])
    assert found == Range(1, 8, integer=True)
    assert found.clip(2.6) == 3 and isinstance(found.clip(2.6), int)
    assert INTEGER.validate_python([1, 2, 8]) == Choices((1, 2, 8))


numbers = st.floats(-10, 10)
ranges = st.builds(lambda a, b: Range(min(a, b), max(a, b)), numbers, numbers)
logs = st.builds(lambda a, b: Range(a, a + b, log=a < a + b), st.floats(1e-9, 1), st.floats(0, 1))
choices = st.lists(numbers, min_size=2, unique=True).map(lambda found: Choices(tuple(found)))


@given(ranges | logs | choices, numbers)
def test_it_survives_its_yaml_form(found: Dimension, value: float) -> None:
    written = yaml.safe_load(yaml.safe_dump(NUMBER.dump_python(found, mode="json")))
    assert NUMBER.validate_python(written) == found
    assert found.low <= found.clip(value) <= found.high
    assert found.has(found.clip(value))


METHODS_AND_GROUPS: list[tuple[dict[str, Any], str]] = [
    ({"method": []}, "merge.method: write two or more methods, or one without a list"),
    ({"method": ["ties"]}, "merge.method: write two or more methods, or one without a list"),
    ({"method": ["ties", "ties"]}, "merge.method: a method is named twice"),
    ({"method": ["ties", "tise"]}, "merge.method[1]: should be 'linear', 'task_arithmetic'"),
    ({"method": ["ties", "slerp"]}, "models: slerp goes from base_model to one source model"),
    (
        {"method": ["della", "ram"], "epsilon": [0, 0.5]},
        "merge.epsilon: has not the same meaning for all of della, ram; leave it out, or search",
    ),
    (
        {"method": ["sce", "ties"], "gamma": 0.1},
        "merge: sce and ties have no parameter 'gamma'; they have select_topk, weight, density",
    ),
    ({"method": "ties", "weight": float("nan")}, "merge.weight: must be finite"),
    ({"method": "ties", "include": True}, "merge.include: should be 'search', not True"),
    ({"method": "nuslerp", "include": "search"}, "nuslerp needs all 2 source models; leave incl"),
    (
        {"method": "ties", "include": "search", "tokenizer_source": "union"},
        "merge.include: a vocabulary of source models changes with those that take part; write",
    ),
    ({"method": "ties", "interpolate": 1}, "merge.interpolate: should be greater than or equal"),
    (
        {"method": "ties", "interpolate": 2, "layer_group_size": 2},
        "merge: give layer_group_size or interpolate, not both",
    ),
    (
        {"method": "ties", "interpolate": 2, "weight": [0, 0.5, 1], "density": 1},
        "merge.interpolate: there is no range between whose values one could interpolate",
    ),
]


@pytest.mark.parametrize(("merge", "message"), METHODS_AND_GROUPS, ids=str)
def test_a_merge_that_cannot_be_searched_is_told_in_a_line(
    spec_content: Callable[..., dict[str, Any]], merge: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(spec_content(merge=merge))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            {"weight": True},
            "merge.weight: write a number, [low, high], {log: [low, high]} or",
        ),
        ({"weight": [1]}, "merge.weight: write a number, [low"),
        ({"weight": []}, "merge.weight: write a number, [low"),
        ({"weight": {"log": [0, 1]}}, "merge.weight.log: the range must begin above 0, not at 0"),
        ({"weight": {"log": [0.1, 1], "choices": [1, 2]}}, "merge.weight: write a number,"),
        ({"weight": {"linear": [0, 1]}}, "merge.weight: write a number, [low"),
        ({"weight": {"choices": [1]}}, "merge.weight: one value is no choice; write it without"),
        ({"weight": {"choices": []}}, "merge.weight: there are no choices"),
        ({"weight": [0, 1, 1]}, "merge.weight: a choice is named twice"),
        ({"weight": [0, 1, "many"]}, "merge.weight: write a number, [low"),
        ({"weight": [False, True]}, "merge.weight: write a number, [low"),
        ({"weight": [0, 1, float("inf")]}, "merge.weight: must be finite"),
        ({"weight": 10**400}, "merge.weight: is too large a number"),
        ({"density": [0.5, 1, 2]}, "merge.density: the choices must lie within [0, 1]"),
        ({"normalize": [0, 1]}, "merge.normalize: write true, false or [true, false]"),
        ({"normalize": [True, True]}, "merge.normalize: a choice is named twice"),
        ({"lambda": "big"}, "merge.lambda: write a number, [low"),
    ],
)
def test_what_it_is_not_is_said_in_a_line(
    spec_content: Callable[..., dict[str, Any]], part: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(spec_content(merge={"method": "ties", **part}))
    assert message in str(error.value) and "\n" not in str(error.value)
