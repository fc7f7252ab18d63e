"""Some hundreds of wrong specs, recipes, URLs and data files, and each bug found; see fuzz.py."""

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from tests import fuzz
from tests.data_files import PACKERS, DataFile, bases, check_data_file

FEW = settings(max_examples=200, suppress_health_check=list(HealthCheck))
HUGE = 16**5000  # as 0xfff... in YAML: Python writes no integer of more than 4,300 digits
SPEC, STEP = fuzz.QUICK, fuzz.STEPS[0]
MORE = fuzz.SPECS[-1]
UNTOLD = {  # data files that are read only as the spec says
    "semicolon.csv": {"delimiter": ";"},
    "sjis.csv": {"encoding": "cp932"},
    "utf16.csv": {"encoding": "utf-16"},
}


@pytest.mark.parametrize("spec", fuzz.SPECS)
def test_the_specs_that_are_changed_are_valid(spec: Any) -> None:
    assert fuzz.check_spec(spec)


@pytest.mark.parametrize("recipe", fuzz.RECIPES)
def test_the_recipes_that_are_changed_are_valid(recipe: Any) -> None:
    assert fuzz.check_recipe(recipe)


@FEW
@example(SPEC | {"stage": "x" * 5000})
@example(SPEC | {"x" * 5000: 1})
@example(SPEC | {"\x1b[2J": 1})
@example(SPEC | {"study": HUGE})
@example(SPEC | {"trials": HUGE})
@example(SPEC | {"evaluation": {"memory_limit": HUGE}})
@example(SPEC | {"base_model": "\ud800"})
@example(SPEC | {"base_model": "\x85"})
@example(MORE | {"constraints": [{"target": "layers", "relation": "<=", "bound": math.nan}]})
@example(MORE | {"constraints": ["layers >= 0.12345678901234567"]})
@given(fuzz.CHECKS["specs"][1])
def test_any_spec_is_read_or_refused(content: Any) -> None:
    fuzz.check_spec(content)


@FEW
@example(b"study: !!int ''")
@example(b"study: !!bool x")
@example(b"study: !!timestamp x")
@example(b"study: !!binary AAAA")
@example(b"trials: 0x" + b"f" * 5000)
@example(b"study: " + b"[" * 3000)
@example(b"\xff")
@given(fuzz.CHECKS["spec files"][1])
def test_any_file_is_read_or_refused(content: bytes) -> None:
    fuzz.check_file(content)


@pytest.mark.parametrize("bomb", fuzz.BOMBS)
def test_aliases_make_no_bomb(bomb: str) -> None:
    assert not fuzz.check_file(bomb.encode())


@FEW
@example({"configuration": {"a": math.nan}, "seed": 0})
@example({"configuration": {"a": (1,), "b": {1: 2}}, "seed": 0})
@example({"configuration": {"a": "\ud800"}, "seed": 0})
@example({"configuration": fuzz.nested(200, dict), "seed": 0})
@example({"configuration": {}, "seed": HUGE})
@example(fuzz.STACK | {"steps": [STEP | {"scale": math.inf}]})
@example(fuzz.STACK | {"steps": [STEP | {"layer": HUGE}]})
@example(fuzz.STACK | {"head": "\ud800"})
@given(fuzz.CHECKS["recipes"][1])
def test_any_recipe_is_read_or_refused(content: Any) -> None:
    fuzz.check_recipe(content)


@FEW
@example(f"{'x' * 5000}://")
@example(f"postgresql://me:p@{fuzz.SECRET}@host/db")
@example(f"postgresql://me/x:{fuzz.SECRET}@host/db")
@example(f"sqlite:///a.db?timeout={fuzz.SECRET}")
@example("sqlite:///~nobody/a.db")
@example("sqlite:///a%00")
@given(fuzz.CHECKS["urls"][1])
def test_any_url_is_read_or_refused(text: str) -> None:
    fuzz.check_url(text)


@pytest.mark.parametrize("name", [name for name in bases() if name not in UNTOLD])
def test_the_data_files_that_are_changed_are_sound(name: str) -> None:
    assert fuzz.check_data(DataFile(name, bases()[name], "options", {}))


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_data_file_is_read(ending: str) -> None:
    content = PACKERS[ending](bases()["a.jsonl"])
    assert fuzz.check_data(DataFile(f"a.jsonl{ending}", content, "labels", {}))


@pytest.mark.parametrize(("name", "told"), UNTOLD.items())
def test_the_data_files_that_need_a_word_name_it(name: str, told: dict[str, str]) -> None:
    file = DataFile(name, bases()[name], "options", {})
    assert json.dumps(*told.values()).strip('"') in str(check_data_file(file))
    assert fuzz.check_data(dataclasses.replace(file, source=told))


@FEW
@given(fuzz.CHECKS["data files"][1])
def test_any_data_file_is_read_or_refused(file: DataFile) -> None:
    fuzz.check_data(file)


@pytest.mark.parametrize(
    "text", ["sqlite://host/a.db", "sqlite:///a.db?timeout=x", "sqlite:///a.db?x=1", "sqlite:///\n"]
)
def test_a_url_that_the_engine_would_refuse(text: str) -> None:
    assert not fuzz.check_url(text)
