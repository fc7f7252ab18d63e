"""What is wrong with content is said in one line that prints, whatever the content was."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import explain, first_line, one_line, value
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.spec.data import DataSource, ShotSource

STUDIES = Path(__file__).parent.parent / "studies"


@given(st.text(), st.integers(min_value=1, max_value=100))
def test_one_line_prints_and_is_not_long(text: str, longest: int) -> None:
    line = one_line(text, longest)
    assert line.isprintable()
    shown = " ".join(text.split())
    assert len(line) <= 10 * longest + 3  # an escape has up to ten characters
    assert line == shown or not shown.isprintable() or line == f"{shown[:longest]}..."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"pth": "a.csv"}, "pth: unknown key; did you mean 'path'?"),
        ({}, "path: missing; add it"),
        ({"path": "a.csv", "n": 0}, "n: should be greater than or equal to 1, not 0"),
        ({"path": ["a.csv"]}, "path: should be a valid string, not a list"),
        ({"path": "a", "encoding": "ebc"}, "encoding: is no encoding of texts that Python knows"),
    ],
)
def test_the_key_what_and_the_cure(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ShotSource.model_validate(content)
    assert explain(caught.value, ShotSource).startswith(message)


def test_an_unknown_key_that_is_near_none_names_all() -> None:
    with pytest.raises(ValidationError) as caught:
        DataSource.model_validate({"path": "a", "zzz": 1})
    assert explain(caught.value, DataSource).startswith("zzz: unknown key; known keys are answer,")


def test_values_are_named() -> None:
    assert [value({}), value([1]), value("a")] == ["a mapping", "a list", "'a'"]
    assert value(10**5000) == "a huge number"


def test_the_first_line_of_an_error_that_says_nothing_is_its_name() -> None:
    assert first_line(ValueError("\n a:\nb")) == "a"
    assert first_line(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({}, "tasks.pictures.scorers.right.type: missing; write type: clip, pickscore,"),
        ({"type": "clp"}, "tasks.pictures.scorers.right.type: should be 'clip', 'pickscore',"),
        ({"type": "clip", "model": 3}, "tasks.pictures.scorers.right.model: should be a valid str"),
    ],
)
def test_a_type_of_task_that_is_a_key_of_another_type(
    scorer: dict[str, object], message: str
) -> None:
    content = yaml.safe_load((STUDIES / "quickstart_image.yaml").read_text())
    content["tasks"]["pictures"]["scorers"]["right"] = scorer
    with pytest.raises(SpecError, match=re.escape(message)):
        parse_spec(content)
