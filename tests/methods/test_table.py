"""Every row of the table says what mergekit's own declaration of the method says.

Covers methods.method, too.
"""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from mergekit import merge_methods
from mergekit.merge_methods import merge_tensors
from mergekit.merge_methods.base import ParameterScope, ParameterSpec
from mergekit.sparsify import della_magprune

from evomerge_optuna.methods import BASELINES, METHODS, Method


def declared(name: str) -> dict[str, ParameterSpec]:
    return {parameter.name: parameter for parameter in merge_methods.get(name).spec.parameters}


ROWS = METHODS | BASELINES


@pytest.fixture(params=ROWS.values(), ids=ROWS)
def row(request: pytest.FixtureRequest) -> Method:
    method: Method = request.param
    return method


def test_nothing_that_mergekit_declares_is_missing(row: Method) -> None:
    known = [*row.searched, *row.fixed, *row.without_effect]
    assert sorted(known) == sorted(declared(row.name))


def test_parameters_have_mergekits_type_and_scope(row: Method) -> None:
    each = ParameterScope.INPUT if row.base == "ignored" else ParameterScope.NON_BASE
    for parameter in row.parameters:
        theirs = declared(row.name)[parameter.name]
        assert theirs.value_type is float
        assert theirs.scope == (each if parameter.scope == "source" else ParameterScope.SHARED)


def test_options_have_mergekits_type_and_default(row: Method) -> None:
    for option in row.options:
        theirs = declared(row.name)[option.name]
        assert theirs.scope == ParameterScope.SHARED
        assert (type(option.default), option.default) == (theirs.value_type, theirs.default)


def test_models_are_those_that_mergekit_takes(row: Method) -> None:
    contract = merge_methods.get(row.name).spec.contract
    assert row.base == contract.base.value
    least, most = row.sources
    base = int(row.base == "required")
    assert least >= max(contract.min_inputs - base, contract.min_non_base or 0)
    theirs = [n - b for n, b in ((contract.max_inputs, base), (contract.max_non_base, 0)) if n]
    assert most == (theirs[0] if theirs else None)


def test_every_method_that_merges_several_models_has_a_row() -> None:
    every = {method.spec.name for method in merge_methods.registered_methods()}
    assert every - {"passthrough"} == ROWS.keys()


def test_values_lie_in_their_ranges(row: Method) -> None:
    for parameter in row.parameters:
        least, most = parameter.bounds or (-float("inf"), float("inf"))
        assert least <= parameter.low < parameter.high <= most
        if parameter.uniform is not None:
            assert parameter.low <= parameter.uniform <= parameter.high


@given(
    density=st.floats(0, 1),
    share=st.floats(0, 0.99),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
@example(density=1 - 2**-53, share=0.99, dtype=torch.float32)
@example(density=5e-324, share=0.99, dtype=torch.float32)
def test_no_epsilon_of_della_is_refused(density: float, share: float, dtype: torch.dtype) -> None:
    values = {"weight": 1.0, "density": density, "epsilon": share}
    epsilon = METHODS["della"].parameter("epsilon").for_mergekit(values)
    assert 0 <= epsilon <= share * min(density, 1 - density)
    della_magprune(torch.arange(6, dtype=dtype).reshape(2, 3), density=density, epsilon=epsilon)


def without_effect() -> list[tuple[str, str]]:
    return [(row.name, name) for row in METHODS.values() for name in row.without_effect]


@pytest.mark.parametrize(("method", "name"), without_effect())
def test_what_is_said_to_have_no_effect_has_none(method: str, name: str) -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(8, 8) for _ in range(3)]
    spec = declared(method)
    values = {p.name: 0.5 for p in spec.values() if p.required} | {"density": 0.5}

    def merged(**given: bool | float) -> torch.Tensor:
        torch.manual_seed(1)
        return merge_tensors(tensors, method, parameters=values | given, base_index=0)

    other = not spec[name].default if spec[name].value_type is bool else 0.25
    assert torch.equal(merged(), merged(**{name: other}))
