"""The data-flow space: its slots, where it begins, and what its parameters mean.

Covers spaces.stacks_by_hand, too.
"""

from dataclasses import replace
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spaces.stack import StackSpace, network_scale
from evomerge_optuna.spaces.stacks_by_hand import Slot, stacks_by_hand
from evomerge_optuna.spec import Choices, StackStudySpec

DEPTHS = {"a": 4, "b": 3}
KINDS = ["none", "step", "matrix", "network"]


def a_space(**stack: Any) -> StackSpace:
    spec = StackStudySpec.model_validate(
        {
            "study": "x",
            "stage": "dfs",
            "models": {"a": "model-a", "b": "model-b"},
            "stack": stack,
            "tasks": {"t": {"type": "perplexity", "data": "d"}},
            "objectives": [{"minimize": "t.perplexity"}],
        }
    )
    return StackSpace(spec.stack, spec.models, DEPTHS, spec.dtype)


def path(recipe: StackRecipe) -> list[str]:
    return [f"{step.model[-1]}{step.layer}" for step in recipe.steps]


def middle(space: StackSpace) -> dict[str, float]:
    return {name: (found.low + found.high) / 2 for name, found in space.ranges().items()}


@pytest.mark.parametrize("scale", KINDS)
@pytest.mark.parametrize("anchors", [0, 1, 2])
@pytest.mark.parametrize("repeats", [1, 3])
def test_it_begins_at_the_identity_path(scale: str, anchors: int, repeats: int) -> None:
    space = a_space(scale=scale, anchors=anchors, repeats=repeats)
    for values in (space.baseline(), middle(space)):
        recipe = space.recipe(values)
        assert path(recipe) == ["a0", "a1", "a2", "a3"]
        assert all(step.scale == 1 for step in recipe.steps)
        assert recipe.embeddings == recipe.head == "model-a"
    ranges = space.ranges()
    assert all(ranges[name].low <= value <= ranges[name].high for name, value in values.items())
    assert space.baseline().keys() == ranges.keys()


@pytest.mark.parametrize(
    ("scale", "count"),
    [("none", 0), ("step", 14), ("matrix", 49), ("network", 21)],
)
def test_how_many_parameters(scale: str, count: int) -> None:
    assert len(a_space(scale=scale, repeats=2).ranges()) == 14 + count
    # Once over, a layer can only be followed by a later one.
    if scale == "matrix":
        assert len(a_space(scale=scale, repeats=1).ranges()) == 7 + 21


def with_slots(space: StackSpace, *chosen: int, **others: float) -> dict[str, float]:
    """Values that put these slots in the path."""
    names = [name for name in space.ranges() if name.startswith("layer.")]
    on = {name: 0.4 if t in chosen else -0.4 for t, name in enumerate(names)}
    return space.baseline() | on | others


def test_slots_in_order_r_times_over() -> None:
    space = a_space(repeats=2, scale="none")
    recipe = space.recipe(with_slots(space, 0, 6, 7, 8, 13))
    assert path(recipe) == ["a0", "b2", "a0", "a1", "b2"]
    assert recipe.head == "model-b"
    first = a_space(repeats=2, scale="none", head="first")
    assert first.recipe(with_slots(first, 0, 6, 7, 8, 13)).head == "model-a"


def test_anchors_are_first_and_last() -> None:
    space = a_space(repeats=2, scale="none", anchors=1)
    # Of the first round the slots a1 a2 b0 b1 b2 are left.
    assert path(space.recipe(with_slots(space, 4, 5))) == ["a0", "b2", "a0", "a3"]
    assert path(space.recipe(with_slots(space))) == ["a0", "a3"]


def test_no_more_than_max_layers_those_with_the_highest_indicators() -> None:
    space = a_space(repeats=1, scale="none", max_layers=2)
    names = list(space.ranges())
    values = with_slots(space, 0, 1, 2) | {names[2]: 0.5, names[1]: 0.6}
    assert path(space.recipe(values)) == ["a1", "a2"]


def test_a_path_is_never_empty() -> None:
    space = a_space(repeats=1, scale="none")
    values = with_slots(space) | {list(space.ranges())[5]: -0.1}
    assert path(space.recipe(values)) == ["b1"]


def test_what_scales_mean() -> None:
    step = a_space(repeats=2, scale="step")
    values = with_slots(step, 0, 8, **{"scale.0": 0.7, "scale.8": 0.8})
    assert [s.scale for s in step.recipe(values).steps] == [1.0, 0.8]  # none before the first
    matrix = a_space(repeats=2, scale="matrix")
    values = with_slots(matrix, 0, 8, 9, **{"scale.0.1": 0.7, "scale.1.2": 0.6})
    assert [s.scale for s in matrix.recipe(values).steps] == [1.0, 0.7, 0.6]
    network = a_space(repeats=2, scale="network")
    bias = {"theta.20": 0.5}  # the last one's, which moves every scale alike
    scales = [s.scale for s in network.recipe(with_slots(network, 0, 8, 9, **bias)).steps]
    assert scales[0] == 1 and scales[1] == scales[2] == pytest.approx(1.231, abs=1e-3)


@given(st.lists(st.floats(-2, 2), min_size=21, max_size=21), *[st.floats(0, 1)] * 3)
def test_the_network_stays_within_the_scales(
    theta: list[float], source: float, target: float, time: float
) -> None:
    assert 0.5 <= network_scale(theta, source, target, time) <= 1.5
    assert network_scale([0.0] * 21, source, target, time) == 1


@pytest.mark.parametrize("scale", KINDS)
@pytest.mark.parametrize("repeats", [1, 2])
def test_every_suggestion_is_a_recipe(scale: str, repeats: int) -> None:
    space = a_space(scale=scale, repeats=repeats, anchors=1, max_layers=6)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        recipe = space.suggest(trial)
        assert recipe == space.recipe(trial.params)
        assert set(trial.params) == set(space.ranges())
        assert 2 <= len(recipe.steps) <= 6
        assert all(step.layer < DEPTHS[step.model[-1]] for step in recipe.steps)
        study.tell(trial, 0.0)


@pytest.mark.parametrize("scale", KINDS)
@pytest.mark.parametrize("anchors", [0, 1])
def test_indicators_as_choices_give_the_same_paths(scale: str, anchors: int) -> None:
    numbers = a_space(scale=scale, anchors=anchors)
    choices = replace(numbers, binary=True)
    assert choices.ranges().keys() == numbers.ranges().keys()
    assert choices.baseline().keys() == choices.ranges().keys()
    for name, found in choices.ranges().items():
        assert isinstance(found, Choices) == name.startswith("layer.")
    assert choices.recipe(choices.baseline()) == numbers.recipe(numbers.baseline())
    for name, values in numbers.starts().items():
        recipe = numbers.recipe(values)
        there = choices.values_of(values, recipe)
        assert there == choices.starts()[name] == choices.moved(values)
        assert choices.recipe(there) == recipe
        back = numbers.values_of(there, recipe)
        assert back == numbers.moved(there) == values


def test_of_too_many_choices_those_of_the_identity_path_are_in() -> None:
    space = replace(a_space(repeats=2, scale="none", max_layers=5), binary=True)
    every = dict.fromkeys(space.ranges(), True)
    assert path(space.recipe(every)) == ["a0", "a1", "a2", "a3", "b0"]
    assert path(space.recipe(dict.fromkeys(every, False))) == ["a0"]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("anchors", [0, 1])
def test_starts_are_stacks_that_people_try_by_hand(binary: bool, anchors: int) -> None:
    space = replace(a_space(scale="network", anchors=anchors), binary=binary)
    starts, ranges = space.starts(), space.ranges()
    recipes = [space.recipe(values) for values in (space.baseline(), *starts.values())]
    assert len({recipe.digest() for recipe in recipes}) == len(recipes) > 6
    for values in starts.values():
        assert values.keys() == ranges.keys()
        assert all(ranges[name].has(value) for name, value in values.items())
    joined = ["all of b", "a, then b", "half of a, half of b", "half of b, half of a"]
    assert [name for name in joined if name in starts] == list(starts)[: 0 if anchors else 4]
    kinds = [name.split(" ", 2)[2] for name in starts if name not in joined]
    assert set(kinds[:4]) <= {"without", "twice", "at the end", "added", "instead"}
    assert len(set(kinds[:3])) == 3  # each kind in turn
    assert starts == space.starts()
    if not anchors:
        assert list(starts) != list(replace(space, seed=1).starts())
        by_name = {name: path(space.recipe(values)) for name, values in starts.items()}
        assert by_name["all of b"] == ["b0", "b1", "b2"]
        assert by_name["a, then b"] == ["a0", "a1", "a2", "a3", "b0", "b1", "b2"]
        assert by_name["half of a, half of b"] == ["a0", "a1", "b1", "b2"]
        assert by_name["half of b, half of a"] == ["b0", "a2", "a3"]
        assert by_name["a 1 without"] == ["a0", "a2", "a3"]
        assert by_name["a 1 twice"] == ["a0", "a1", "a1", "a2", "a3"]
        assert by_name["b 2 at the end"] == ["a0", "a1", "a2", "a3", "b2"]
        assert by_name["b 1 added"] == ["a0", "a1", "b1", "a2", "a3"]
        assert by_name["b 1 instead"] == ["a0", "b1", "a2", "a3"]


def test_neighbours_of_deep_models_differ_by_blocks() -> None:
    found = dict(stacks_by_hand({"a": 30, "b": 28}, seed=0))
    assert len(found) == 4 + 5 * 6
    assert [slot.layer for slot in found["a 5-9 without"]] == [*range(5), *range(10, 30)]
    assert found["b 25-27 at the end"][30:] == [Slot("b", n) for n in (25, 26, 27)]
