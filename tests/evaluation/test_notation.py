"""Numbers as languages, currencies, LaTeX and kanji write them, and references that are none."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.evaluation.answers import (
    last_number,
    numbers,
    one_number,
    respelt,
    written_numbers,
)
from evomerge_optuna.evaluation.notation import decimal_text

SEPARATORS = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}\N{FIGURE SPACE}'’"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        # signs and currency
        ("US$ 1,234.50", "1234.50"),
        ("-$1,234.50", "-1234.50"),
        ("−€5", "-5"),
        ("- $5", "5"),
        ("$-5", "-5"),
        ("the profit is -US$ 5.", "-5"),
        ("-$.50", "-0.5"),
        ("10-$3", "3"),
        ("$5-$10", "10"),
        ("$5k", "5000"),
        ("€1.2M", "1200000"),
        ("$3 million", "3000000"),
        ("2.5 billion people", "2500000000"),
        ("5 thousand", "5000"),
        ("5k", "5000"),
        ("5 km", "5"),
        ("3M tape", "3"),
        ("4K", "4"),
        ("negative 5", "-5"),
        ("It is minus 5 degrees", "-5"),
        ("10 minus 5", "5"),
        ("5 apples minus 3", "3"),
        # LaTeX
        (r"\(-\$5\)", "-5"),
        (r"\$72{,}000", "72000"),
        (r"72\,000", "72000"),
        (r"1\;234\;567", "1234567"),
        (r"72~000", "72000"),
        (r"\boxed{72,\!000}", "72000"),
        (r"\text{Answer: }18", "18"),
        (r"$18 \text{ dollars}$", "18"),
        (r"18^\circ", "18"),
        (r"18\%", "18"),
        (r"\dfrac{1}{2}", "0.5"),
        (r"-\frac{3}{4}", "-0.75"),
        (r"\frac{-3}{4}", "-0.75"),
        (r"1\frac{1}{2}", "1.5"),
        (r"-2 \tfrac{1}{4}", "-2.25"),
        (r"\frac12", "0.5"),
        (r"\frac{1,000}{3}", "1000/3"),
        (r"\frac{x}{2}", "2"),
        (r"2\cdot\frac{1}{2}=1", "1"),
        (r"3\times10^4", "30000"),
        (r"3 \times 10^{-2}", "0.03"),
        # fractions, mixed numbers, powers of ten
        ("1 1/2", "1.5"),
        ("-1 1/2", "-1.5"),
        ("2 3/4 cups", "2.75"),
        ("2 3/2", "1.5"),
        ("½", "0.5"),
        ("2½ cups", "2.5"),
        ("1⁄3", "1/3"),
        ("3 / 4", "0.75"),
        ("3/4.", "0.75"),
        ("１／２", "0.5"),
        ("16/4=4", "4"),
        ("5/0", "0"),
        ("2024/05/03", "3"),
        ("1.5e3", "1500"),
        ("1E-3", "0.001"),
        ("2×10⁵", "200000"),
        (".75", "0.75"),
        ("(.5)", "0.5"),
        ("答えは.75です", "0.75"),
        ("The answer is 十八.", "18"),
        ("72 thousandです", "72000"),
        ("It ends.5", "5"),
        # groups
        *((f"1{blank}234{blank}567.5", "1234567.5") for blank in SEPARATORS),
        ("3 000 000", "3000000"),  # what else would 000 be?
        ("3 500", "500"),
        ("2 crore", "20000000"),
        ("1,00,000", "100000"),
        ("10,20,30", "30"),
        ("10_000", "10000"),
        # percent
        ("12.5 percent", "12.5"),
        ("50 %", "50"),
        ("25パーセント", "25"),
        # kanji
        ("答えは二十三個です", "23"),
        ("三百二十一円", "321"),
        ("3万5千円", "35000"),
        ("1億2000万人", "120000000"),
        ("1,234万円", "12340000"),
        ("3.5万", "35000"),
        ("二〇二四年", "2024"),
        ("二千二十四", "2024"),
        ("一億二千三百万円", "123000000"),
        ("約三十人", "30"),
        ("3万,5万", "50000"),
        ("四分の三です", "0.75"),
        ("1と2分の1", "1.5"),
        ("答えは三人です。", "3"),
        ("答えは一つです", "1"),
        ("9個です。一人で三回計算しました。", "9"),
        ("千葉県に3人", "3"),
        ("9個です。これが一番簡単です。", "9"),
        ("9個です。一人で計算しました。", "9"),
        ("9個です。十分な数です。", "9"),
        ("9個です。唯一の答えです。", "9"),
        ("9個です。第三に、", "9"),
        ("10マイナス3", "3"),
        # digits of other scripts
        ("१८", "18"),
        ("১৮", "18"),
        ("๑๘", "18"),
        ("١٨", "18"),
        ("𝟏𝟖", "18"),
        # what surrounds a number
        ("**18**", "18"),
        ("*-5*", "-5"),
        ("18.", "18"),
        ("x=5", "5"),
        ("[5]", "5"),
        ("18th", "18"),
    ],
)
def test_last_number(text: str, last: str) -> None:
    assert last_number(text) == Fraction(last)


@pytest.mark.parametrize(
    ("text", "language", "last"),
    [
        ("1.234,56", "de", "1234.56"),
        ("١٬٢٣٤٫٥", "ar", "1234.5"),
        ("1.234.567", "es", "1234567"),
        ("Es sind 1.234.", "de", "1234"),
        ("3,5", "fr", "3.5"),
        ("3.5", "fr", "3.5"),
        ("0,125", "pt", "0.125"),
        ("0.125", "pt", "0.125"),
        ("1,234.56", "de", "1234.56"),
        ("1,234,567", "es", "1234567"),
        ("12 000 €", "fr", "12000"),
        ("1 234 567,5", "ru", "1234567.5"),
        ("1’234.50", "de", "1234.50"),
        ("1.000,- €", "de", "1000"),
        ("5,-", "de", "5"),
        ("2,5 Millionen", "de", "2500000"),
        ("3 Milliarden", "de", "3000000000"),
        ("2,5 millones", "es", "2500000"),
        ("3 mil", "es", "3000"),
        ("12,5 %", "de", "12.5"),
        ("-1.234,5 €", "de", "-1234.5"),
        ("1,234", "en", "1234"),
        ("1,234", "ja", "1234"),
        ("1.234", "en", "1.234"),
    ],
)
def test_the_decimal_mark_is_the_languages(text: str, language: str, last: str) -> None:
    assert last_number(text, language) == Fraction(last)


def equal(one: str, other: str, language: str | None = None) -> bool:
    return written_numbers(one, language)[-1].equals(written_numbers(other, language)[-1])


@pytest.mark.parametrize(
    ("one", "other", "language", "same"),
    [
        ("1/3", r"\frac{1}{3}", None, True),
        ("0.333333", "1/3", None, False),
        ("0.1", "1/10", None, True),
        ("25%", "25", None, True),
        ("25%", "0.25", None, True),
        ("0.25", "25%", None, True),
        ("0.25%", "25%", None, False),
        ("0.25", "25", None, False),
        ("1.234", "1234", "es", True),  # both customs are met in the world, whatever the language
        ("1,234", "1234", "es", True),
        ("1,234", "1.234", "es", True),
        ("1,234", "1.234", "en", False),
        ("2,5", "25", "es", False),
        ("12345678901234567890.1", "12345678901234567890.2", None, False),
        ("9" * 5000, "9" * 5000, None, False),  # of a model that repeats itself
    ],
)
def test_numbers_are_compared_exactly(
    one: str, other: str, language: str | None, same: bool
) -> None:
    assert equal(one, other, language) is equal(other, one, language) is same


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("$18 each", "18"),
        ("18個", "18"),
        ("#3", "3"),
        ("x = 3", "3"),
        ("3/4", "0.75"),
        (r"\frac{1}{2}", "0.5"),
        ("1 1/2", "1.5"),
        ("1e5", "100000"),
        ("a 3 b 4\n#### 18", "18"),
        ("It is 3 * 6. The answer is 18.", "18"),
        ("3に6を掛けて、答えは18です", "18"),
        (r"As 3 < 4, \boxed{\frac{3}{4}}", "0.75"),
        *((text, None) for text in (
            "1:30", "x = 3, y = 5", "x = 3\ny = 5", "5-10", "2024-05-03", "10/2/3", "10^2", "2*3",
            r"2\sqrt{3}", r"\sqrt{2}", r"2\pi", "2π", "3x", "x+1", "3 + 5", "3+", "(3, 4)", "[1,2]",
            "1,2", "3:4", "2 m 3 cm", "3 or 4", "±5", "5!", "5²", "|-3|", "log 2", "3i", "< 3",
            "", "two", "NaN", "東京", "9" * 5000,
        )),
    ],
)  # fmt: skip
def test_a_reference_is_one_number_or_none(text: str, number: str | None) -> None:
    found = one_number(text)
    assert (found and found.readings[0]) == (None if number is None else Fraction(number))


FRACTIONS = st.fractions(max_denominator=1000, min_value=-(10**9), max_value=10**9)


@given(FRACTIONS)
def test_a_fraction_is_read_back_however_it_is_written(value: Fraction) -> None:
    top, bottom = abs(value.numerator), value.denominator
    sign = "-" if value < 0 else ""
    whole, rest = divmod(top, bottom)
    for written in (
        f"{sign}{top}/{bottom}",
        rf"{sign}\frac{{{top}}}{{{bottom}}}",
        f"{sign}{whole} {rest}/{bottom}" if whole and rest else decimal_text(value),
    ):
        assert last_number(f"It is {written}.") == value


@given(st.integers(0, 10**7), st.integers(0, 99), st.sampled_from(["de", "fr", "es", "ru"]))
def test_a_decimal_comma_is_read_back(whole: int, cents: int, language: str) -> None:
    english = f"{whole:,}.{cents:02}"
    for group in (".", " ", "\N{NARROW NO-BREAK SPACE}", ""):
        written = english.replace(",", "g").replace(".", ",").replace("g", group)
        assert last_number(f"({written})", language) == whole + Fraction(cents, 100)


def in_kanji(value: int) -> str:
    parts = []
    for unit, name in ((10**8, "億"), (10**4, "万"), (1, "")):
        section = value // unit % 10**4
        digits = "".join(
            ("" if digit == 1 else "〇一二三四五六七八九"[digit]) + ten
            for digit, ten in zip(map(int, f"{section:04}"), "千百十", strict=False)
            if digit
        ) + ("" if section % 10 == 0 else "〇一二三四五六七八九"[section % 10])  # fmt: skip
        parts += [digits + name] if section else []
    return "".join(parts)


@given(st.integers(1, 10**12 - 1))
def test_kanji_are_read_back(value: int) -> None:
    assert last_number(f"答えは{in_kanji(value)}円です。") == value


@given(st.text(st.sampled_from("0123456789.,-−/ $%{}\\frac万千十三分のekx×^10½'\u2009")))
def test_any_text_of_numbers_marks_is_read(text: str) -> None:
    for language in (None, "de"):
        assert isinstance(numbers(text, language), list)
        one_number(text, language)
        respelt(text, language)


@given(FRACTIONS)
def test_the_text_of_a_number_is_that_number(value: Fraction) -> None:
    assert Fraction(decimal_text(value)) == value
    if set(decimal_text(value)) <= set("-0123456789"):
        assert json.loads(decimal_text(value)) == value
