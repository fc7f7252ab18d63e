"""The parameter space: readable names, and recipes that mean to mergekit what they say.

Covers spaces.configuration, spaces.groups, spaces.of_spec, spaces.places, spaces.searched and
spaces.space, too.
"""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import ConfigReader, MergeConfiguration
from mergekit.merge_methods import get as merge_method
from mergekit.merge_methods import merge_tensors
from optuna.distributions import CategoricalDistribution, FloatDistribution

from evomerge_optuna.methods import METHODS, Parameter
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.space import distributions
from evomerge_optuna.spec import Choices, parse_spec
from tests.conftest import LAYERS, SpecMaker


def test_names_read_well(make_spec: SpecMaker) -> None:
    space = ParameterSpace.of(make_spec(), LAYERS)
    assert list(space.ranges()) == [
        f"{alias}.{parameter}.{group}"
        for group in ("g0", "g1")
        for alias in "ab"
        for parameter in ("weight", "density")
    ]


def test_a_fixed_value_is_no_parameter(make_spec: SpecMaker) -> None:
    space = ParameterSpace.of(make_spec(merge={"method": "ties", "density": 0.5}), LAYERS)
    assert list(space.ranges()) == ["a.weight.g0", "b.weight.g0"]
    (part,) = space.recipe(space.baseline()).configuration["slices"]
    assert part["sources"][1]["parameters"] == {"weight": 0.5, "density": 0.5}


def test_uniform_merge_stays_in_range(make_spec: SpecMaker) -> None:
    merge = {"method": "ties", "weight": [0.6, 2], "density": [0.1, 0.8]}
    space = ParameterSpace.of(make_spec(merge=merge), LAYERS)
    assert set(space.baseline().values()) == {0.6, 0.8}


def test_the_last_group_takes_what_is_left(make_spec: SpecMaker) -> None:
    space = ParameterSpace.of(make_spec(merge={"method": "ties", "layer_group_size": 3}), LAYERS)
    assert [group.layers for group in space.groups] == [(0, 3), (3, 4)]


def test_options_reach_mergekit(make_spec: SpecMaker) -> None:
    merge = {
        "method": "dare_ties",
        "normalize": False,
        "int8_mask": True,
        "lambda": 0.7,
        "dtype": "bfloat16",
        "tokenizer_source": "base",
    }
    configuration = ParameterSpace.of(make_spec(merge=merge), LAYERS).recipe({}).configuration
    assert configuration["parameters"] == {"normalize": False, "int8_mask": True, "lambda": 0.7}
    assert configuration["dtype"] == "bfloat16"
    assert configuration["tokenizer_source"] == "base"


GROUPS: list[dict[str, Any]] = [
    {},
    {"layer_group_size": 1},
    {"layer_group_size": 3},
    {"layer_groups": ["self_attn", "mlp"]},
    {"layer_group_size": 3, "layer_groups": ["mlp"]},
    {"interpolate": 3},
    {"interpolate": 2, "layer_groups": ["mlp"]},
]


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_mergekit_resolves_every_parameter_as_it_was_suggested(
    spec_content: Callable[..., dict[str, Any]], groups: dict[str, Any], method: str, seed: int
) -> None:
    """Read back, through mergekit's own resolution, each source's value for each tensor."""
    models = {alias: f"model-{alias}" for alias in "ab"[: METHODS[method].sources[1]]}
    spec = parse_spec(
        spec_content(base_model="base", models=models, merge={"method": method, **groups})
    )
    space = ParameterSpace.of(spec, LAYERS)
    given, configuration = suggested(space, seed)
    for layer in range(LAYERS):
        for tensor in (f"layers.{layer}.self_attn.q_proj", f"layers.{layer}.mlp.up_proj"):
            for alias, model in models.items():
                for parameter in METHODS[method].parameters:
                    found = resolve(configuration, method, parameter.name, model, layer, tensor)
                    assert found == wanted(space, given, parameter, alias, layer, tensor)


def suggested(space: ParameterSpace, seed: int) -> tuple[dict[str, Any], MergeConfiguration]:
    """A random trial's parameters and what mergekit makes of its recipe."""
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    configuration = MergeConfiguration.model_validate(space.suggest(trial).configuration)
    return trial.params, configuration


def wanted(
    space: ParameterSpace,
    given: dict[str, Any],
    parameter: Parameter,
    alias: str,
    layer: int,
    tensor: str,
) -> float:
    """What a tensor of a source model should be merged with, by the trial's parameters."""
    method, number = space.spec.merge.methods[0], space.spec.merge.interpolate
    group = group_of(space, layer, tensor)
    points = [group]
    if number is not None:
        points = [f"p{n}" if group == "g0" else f"p{n}.{group}" for n in range(number)]
    values = []
    for point in points:
        of_point = {
            name: given.get(f"{alias}.{name}.{point}", given.get(f"merge.{name}.{point}"))
            for name in method.searched
        }
        values.append(parameter.for_mergekit(of_point))
    depth = layer / (LAYERS - 1) * (len(points) - 1)
    below = int(depth)
    above = min(below + 1, len(points) - 1)
    return (1 - (depth - below)) * values[below] + (depth - below) * values[above]


def test_what_several_models_share_is_named_after_the_merge(make_spec: SpecMaker) -> None:
    merge = {"method": "ramplus_tl", "alpha": 0.3, "layer_groups": ["mlp"]}
    space = ParameterSpace.of(make_spec(merge=merge), LAYERS)
    names = [f"merge.{name}.{group}" for group in ("mlp", "other") for name in ("r", "epsilon")]
    assert list(space.ranges()) == names
    configuration = space.recipe(dict.fromkeys(names, 0.25)).configuration
    assert configuration["parameters"]["alpha"] == [{"filter": "mlp", "value": 0.3}, {"value": 0.3}]
    assert space.sources() == {}  # no value of these leaves a model out
    assert (
        space.values_of(dict.fromkeys(names, 0.25), space.recipe(dict.fromkeys(names, 0.5))) is None
    )


def test_a_base_model_of_its_own_is_none_of_nuslerps(make_spec: SpecMaker) -> None:
    without = make_spec(base_model=None, merge={"method": "nuslerp"})
    assert "base_model" not in ParameterSpace.of(without, LAYERS).recipe({}).configuration


def group_of(space: ParameterSpace, layer: int, tensor: str) -> str:
    for group in space.groups:
        is_here = group.layers is None or group.layers[0] <= layer < group.layers[1]
        if is_here and (group.filter is None or group.filter in tensor):
            return group.name
    raise AssertionError(tensor)


def resolve(
    configuration: MergeConfiguration,
    method: str,
    parameter: str,
    model: str,
    layer: int,
    tensor: str,
) -> Any:
    from mergekit.config import evaluate_setting

    reader = ConfigReader(config=configuration, t=0)
    sources: list[Any] = []
    if configuration.slices:
        for part in configuration.slices:
            if part.sources[0].layer_range[0] <= layer < part.sources[0].layer_range[1]:
                reader = reader.for_out_slice(part)
                sources = part.sources
    else:
        sources = configuration.models or []
    spec = next(p for p in merge_method(method).spec.parameters if p.name == parameter)
    (source,) = [s for s in sources if str(s.model) == model]
    settings = [source.parameters, *reader.parameter_sources(None)]
    for found in settings:
        if found and parameter in found:
            depth = 0 if configuration.slices else layer / (LAYERS - 1)
            return evaluate_setting(tensor, found[parameter], depth, validate=spec.validate)
    raise AssertionError(parameter)


def test_every_kind_of_dimension_reaches_mergekit(make_spec: SpecMaker) -> None:
    merge = {
        "method": "dare_ties",
        "weight": {"log": [0.01, 1]},
        "density": [0.25, 0.5, 1],
        "rescale": [True, False],
        "lambda": [0.5, 1.5],
        "normalize": True,
        "layer_group_size": 2,
    }
    space = ParameterSpace.of(make_spec(merge=merge), LAYERS)
    assert distributions(space)["a.weight.g0"] == FloatDistribution(0.01, 1, log=True)
    assert distributions(space)["a.density.g1"] == CategoricalDistribution((0.25, 0.5, 1.0))
    assert distributions(space)["merge.lambda.g1"] == FloatDistribution(0.5, 1.5)
    assert distributions(space)["merge.rescale.g0"] == CategoricalDistribution((True, False))
    drawn = space.baseline() | {"merge.lambda.g1": 0.7, "merge.rescale.g0": False}
    configuration = space.recipe(drawn).configuration
    assert configuration["parameters"] == {"normalize": True}  # fixed, so of the whole merge
    first, second = (part["parameters"] for part in configuration["slices"])
    assert first == {"rescale": False, "lambda": 1.0}  # the baseline has mergekit's own values
    assert second == {"rescale": True, "lambda": 0.7}
    assert space.values_of(drawn, space.recipe(drawn)) == drawn


def test_what_somebody_queued_is_a_choice_as_the_spec_has_it(make_spec: SpecMaker) -> None:
    """1 for true, as other languages and databases write it: the same recipe, the same digest."""
    merge = {"method": "ties", "weight": {"choices": [0.5, 1]}, "normalize": [True, False]}
    space = ParameterSpace.of(make_spec(merge=merge, sampler="gp"), LAYERS)
    values = space.baseline() | {"a.weight.g0": 1.0, "merge.normalize.g0": True}
    study = optuna.create_study()
    study.enqueue_trial(values | {"a.weight.g0": 1, "merge.normalize.g0": 1})
    queued = space.suggest(study.ask())
    assert queued.to_yaml() == space.recipe(values).to_yaml()
    assert queued.digest() == space.recipe(values).digest()


def test_an_option_is_no_parameter_unless_it_is_searched(make_spec: SpecMaker) -> None:
    plain = ParameterSpace.of(make_spec(merge={"method": "ties"}), LAYERS)
    fixed = ParameterSpace.of(make_spec(merge={"method": "ties", "lambda": 0.7}), LAYERS)
    assert plain.ranges().keys() == fixed.ranges().keys()


SEVERAL = {"method": ["ties", "dare_ties", "della"], "layer_group_size": 2}


def test_of_several_methods_what_they_share_is_shared(make_spec: SpecMaker) -> None:
    space = ParameterSpace.of(make_spec(merge=SEVERAL), LAYERS)
    assert space.ranges().pop("merge.method") == Choices(("ties", "dare_ties", "della"))
    assert [name for name in space.ranges() if name.endswith("g1")] == [
        f"{alias}.{parameter}.g1" for alias in "ab" for parameter in ("weight", "density")
    ] + ["a.della-epsilon.g1", "b.della-epsilon.g1"]


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_a_recipe_has_only_what_its_method_takes(
    spec_content: Callable[..., dict[str, Any]], seed: int
) -> None:
    merge = {"method": ["della", "ram", "linear"], "include": "search", "rescale": [True, False]}
    content = spec_content(base_model="base", models={"a": "x", "b": "y"}, merge=merge)
    space = ParameterSpace.of(parse_spec(content), LAYERS)
    given, configuration = suggested(space, seed)
    method = METHODS[given["merge.method"]]
    assert configuration.merge_method == method.name
    (part,) = configuration.slices or []
    own = {
        alias: source.parameters or {}
        for source in part.sources
        for alias, model in space.spec.models.items()
        if str(source.model) == model
    }
    flags = [alias for alias in "ab" if given[f"{alias}.include"]] or ["a"]
    least = 2 if method.name == "multislerp" else 1
    assert [*own] == flags and len(own) >= least
    each = {p.name for p in method.parameters if p.scope == "source"}
    assert all(values.keys() == each for values in own.values())
    shared = {p.name for p in method.parameters if p.scope == "shared"}
    assert (part.parameters or {}).keys() == shared | ({"rescale"} & {*method.fixed})


def test_parameters_of_one_name_that_mean_two_things_are_two(make_spec: SpecMaker) -> None:
    space = ParameterSpace.of(make_spec(merge={"method": ["della", "ram", "ramplus_tl"]}), LAYERS)
    names = {name for name in space.ranges() if "epsilon" in name}
    assert names == {"a.della-epsilon.g0", "b.della-epsilon.g0", "merge.ram-epsilon.g0"}


def test_a_merge_by_one_method_has_its_place_among_several(make_spec: SpecMaker) -> None:
    own = ParameterSpace.of(make_spec(merge={"method": "della", "layer_group_size": 2}), LAYERS)
    several = ParameterSpace.of(make_spec(merge={**SEVERAL, "include": "search"}), LAYERS)
    drawn = own.baseline() | {"a.epsilon.g1": 0.7, "b.weight.g0": 0.1}
    found = several.values_of(drawn, own.recipe(drawn))
    assert found is not None and several.recipe(found) == own.recipe(drawn)
    other = ParameterSpace.of(make_spec(merge={"method": "sce", "layer_group_size": 2}), LAYERS)
    assert several.values_of(other.baseline(), other.recipe(other.baseline())) is None


@pytest.mark.parametrize("method", ["della", "della_linear", "ties"])
def test_a_merge_by_several_methods_has_its_place_in_the_space_of_one(
    make_spec: SpecMaker, method: str
) -> None:
    several = ParameterSpace.of(
        make_spec(merge={"method": ["ram", "ties", "della_linear", "della"]}), LAYERS
    )
    own = ParameterSpace.of(make_spec(merge={"method": method}), LAYERS)
    drawn = several.baseline() | {"merge.method": method, "b.weight.g0": 0.1}
    drawn |= {name: 0.7 for name in drawn if name.startswith("a.") and "epsilon" in name}
    found = own.values_of(several.values(drawn), several.recipe(drawn))
    assert found is not None and own.recipe(found) == several.recipe(drawn)
    assert found.get("a.epsilon.g0", 0.7) == 0.7


def test_a_merge_whose_values_the_spec_fixed_has_its_place(make_spec: SpecMaker) -> None:
    fixed = ParameterSpace.of(make_spec(merge={"method": "ties", "density": 0.3}), LAYERS)
    own = ParameterSpace.of(make_spec(merge={"method": "ties"}), LAYERS)
    drawn = fixed.baseline() | {"a.weight.g0": 0.9}
    found = own.values_of(fixed.values(drawn), fixed.recipe(drawn))
    assert found == drawn | {"a.density.g0": 0.3, "b.density.g0": 0.3}


def test_a_source_model_alone_leaves_the_others_out(make_spec: SpecMaker) -> None:
    space = ParameterSpace.of(make_spec(merge={"method": "ties", "include": "search"}), LAYERS)
    (part,) = space.recipe(space.sources()["b"]).configuration["slices"]
    assert [source["model"] for source in part["sources"]] == [
        space.spec.base_model,
        space.spec.models["b"],
    ]
    assert space.values(space.sources()["b"]) == {"b.weight.g0": 1.0, "b.density.g0": 1.0}


def test_choices_do_not_change_with_the_depth(make_spec: SpecMaker) -> None:
    merge = {"method": "ties", "density": [0.1, 0.5, 1], "normalize": [True, False]}
    space = ParameterSpace.of(make_spec(merge={**merge, "interpolate": 2}), LAYERS)
    names = [f"{alias}.{place}" for alias in "ab" for place in ("weight.p0", "weight.p1")]
    assert {*space.ranges()} == {*names, "a.density.g0", "b.density.g0", "merge.normalize.g0"}
    configuration = space.recipe(space.baseline() | {"a.weight.p1": 0.25}).configuration
    assert configuration["models"][1]["parameters"] == {"weight": [0.5, 0.25], "density": 1.0}


@pytest.mark.parametrize("method", [row.name for row in METHODS.values() if row.divides])
def test_weights_that_are_all_zero_are_merged_as_equal_ones(
    make_spec: SpecMaker, method: str
) -> None:
    """mergekit would divide by their sum, which makes every weight of the model NaN."""
    space = ParameterSpace.of(make_spec(merge={"method": method, "layer_group_size": 2}), LAYERS)
    zero = dict.fromkeys(space.ranges(), 0.0)
    recipes = [space.recipe(zero | {"a.weight.g1": value}) for value in (0.0, 0.25)]
    found = [
        [source["parameters"]["weight"] for source in part["sources"][-2:]]
        for recipe in recipes
        for part in recipe.configuration["slices"]
    ]
    assert found == [[1, 1], [1, 1], [1, 1], [0.25, 0]]


def test_every_method_that_divides_by_no_sum_is_known() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(4, 4) for _ in range(3)]
    for method in METHODS.values():
        if "weight" not in method.searched:
            continue
        values = {"weight": 0.0, "density": 0.5, "epsilon": 0.1, "gamma": 0.01}
        given = {name: value for name, value in values.items() if name in method.searched}
        base = {} if method.base == "ignored" else {"base_index": 0}
        merged = merge_tensors(tensors, method.name, parameters=given, **base)
        assert bool(merged.isnan().any()) == (method.divides is not None), method.name
