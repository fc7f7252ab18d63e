"""Numbers as people write them, in English and Japanese."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.evaluation.answers import last_number, numbers


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("The answer is 18.", "18"),
        ("答えは18です。", "18"),
        ("答えは１８個です", "18"),
        ("合計は1,234円です。", "1234"),
        ("１，２３４，５６７円", "1234567"),
        ("It costs $1,234.50 in all", "1234.50"),
        ("3.5 km", "3.5"),
        ("３．５キロ", "3.5"),
        ("The answer is -7.", "-7"),
        ("答えは−7度です", "-7"),
        ("答えは－７です", "-7"),
        ("答えは–7です", "-7"),
        ("- 18", "18"),
        ("答えは\n- 18", "18"),
        ("10 - 3", "3"),
        ("１０　－　３", "3"),
        ("GPT-4", "4"),
        ("ＧＰＴ－４", "4"),
        ("一辺は5²", "5"),
        ("広さは50㎡です", "50"),
        ("5½", "5.5"),
        ("10-3", "3"),
        ("(4)-3", "3"),
        ("5 - 3 = 2", "2"),
        ("x = -0.25", "-0.25"),
        ("1, 2, 3", "3"),
        ("pages 10,20", "20"),
        ("12,34", "34"),
        ("1,2345", "2345"),
        ("version 1.2.3", "3"),
        ("It ends with 42.", "42"),
        ("42。", "42"),
        ("100%", "100"),
        ("3/4", "0.75"),
        ("メーター3", "3"),
        ("16-3-4=9、9×2=18ドル", "18"),
        ("007", "7"),
        ("", None),
        ("答えはありません", None),
        ("no number - at all.", None),
    ],
)
def test_last_number(text: str, last: str | None) -> None:
    assert last_number(text) == (None if last is None else Fraction(last))


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_read_back_however_it_is_written(value: int) -> None:
    full_width = str(value).translate(str.maketrans("0123456789-", "０１２３４５６７８９－"))
    for written in (str(value), f"{value:,}", full_width):
        assert last_number(f"答えは {written} です。") == value


@given(st.text())
def test_any_text_has_numbers_or_none(text: str) -> None:
    assert isinstance(numbers(text), list)
