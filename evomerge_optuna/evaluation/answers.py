"""The answer in a generated text: its last number, as people write numbers."""

import re
from dataclasses import dataclass
from fractions import Fraction

from evomerge_optuna.evaluation.notation import DECIMAL_COMMA, decimal_text, plain

# Groups of three digits after commas (or of two before the last three, as in India), or plain
# digits; a decimal part.
_POINT = (
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)(?:\.\d+)?"
    r"|\d+(?:\.\d+)?|(?<![A-Za-z\d.])\.\d+)"
)
_COMMA = (
    r"(?:\d{1,3}(?:\.\d{3})+(?!\d)(?:,\d+)?|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"
    r"|\d+(?:[.,]\d+)?|(?<![A-Za-z\d.,])[.,]\d+)"
)
_TEN_TO = (
    r"(?:[eE][+-]?\d{1,3}(?![\w.])|\s?(?:×|\*|x)\s?10\s?\^\s?(?:\{\s?-?\d{1,3}\s?\}|-?\d{1,3}))"
)
_LONGEST = 400  # characters of a number; a model that repeats a digit writes none


def _written(unsigned: str) -> re.Pattern[str]:
    # Right before a number a minus that is no subtraction ("5-3" holds 5 and 3, "は-3" and "= -3"
    # hold -3), no bullet ("- 3") and no hyphen ("GPT-3").
    number = rf"{unsigned}{_TEN_TO}?"
    return re.compile(
        r"(?P<sign>(?<![\d)A-Za-z])-)?"
        rf"(?:(?P<whole>\d{{1,9}})[ \N{{THIN SPACE}}](?=\d{{1,9}}\s?/\s?\d{{1,9}}(?![\d/.,]\d|/)))?"
        rf"(?P<parts>{number}(?:\s?/\s?{number})*)(?P<percent>\s?%)?"
    )


_WRITTEN = {True: _written(_COMMA), False: _written(_POINT)}
_ONE = {True: re.compile(_COMMA + _TEN_TO + "?"), False: re.compile(_POINT + _TEN_TO + "?")}


@dataclass(frozen=True)
class Number:
    """A number as it was written, exactly.

    `readings` has what it may be, likeliest first; where the decimal mark is a comma, 1.234 and
    1,234 may each be 1234 or 1.234. Of a number with too many digits there is none.
    """

    readings: tuple[Fraction, ...]
    percent: bool = False

    def equals(self, other: "Number") -> bool:
        """Is it the same number? 25% is 0.25 as well as the 25 of a question that asks for %."""
        mine, its = set(self.readings), set(other.readings)
        if self.percent and not other.percent:
            mine |= {value / 100 for value in mine}
        if other.percent and not self.percent:
            its |= {value / 100 for value in its}
        return bool(mine & its)

    def __str__(self) -> str:
        shown = decimal_text(self.readings[0]) if self.readings else "a huge number"
        return f"{shown}%" if self.percent else shown


def written_numbers(text: str, language: str | None = None) -> list[Number]:
    """All numbers in a text, in order.

    Full-width digits and signs are read as their ASCII forms, a hyphen or minus sign right before
    a number or its currency as its sign unless a digit, a closing parenthesis or a Latin letter
    stands before it; fractions, mixed numbers, powers of ten, percents, kanji and LaTeX as what
    they are. Of 2024/05/03 each part is a number.

    Args:
        language: an ISO 639 code: is the decimal mark a comma?
    """
    comma = language in DECIMAL_COMMA
    matches = _WRITTEN[comma].finditer(plain(text, language))
    return [number for match in matches for number in _numbers(match, comma)]


def respelt(text: str, language: str | None = None, like: Number | None = None) -> str:
    """The text with its numbers as a programmer writes them: 72000, -1234.5, 2/3.

    Args:
        like: how a number is read that may be this one or another.
    """
    comma = language in DECIMAL_COMMA

    def spelt(match: re.Match[str]) -> str:
        found = _numbers(match, comma)
        if like is not None and len(found) == 1 and len(found[0].readings) > 1:
            found = [like] if found[0].equals(like) else found
        plain_one = len(found) == 1 and found[0].readings and not re.match(r"0\d", match[0])
        return str(found[0]) if plain_one else match[0]

    return _WRITTEN[comma].sub(spelt, plain(text, language))


def _numbers(match: re.Match[str], comma: bool) -> list[Number]:
    parts = [_readings(part, comma) for part in _ONE[comma].findall(match["parts"])]
    sign, percent = -1 if match["sign"] else 1, match["percent"] is not None
    whole = [Fraction(match["whole"])] if match["whole"] else []
    if len(parts) == 2 and all(parts) and parts[1][0] != 0:  # of 2024/05/03 each is one
        value = parts[0][0] / parts[1][0]
        if whole and value < 1:
            return [Number((sign * (whole[0] + value),), percent)]
        parts = [(value,)]
    parts = [*((value,) for value in whole), *parts]
    parts[0] = tuple(sign * value for value in parts[0])
    return [Number(part, percent and part is parts[-1]) for part in parts]


def numbers(text: str, language: str | None = None) -> list[Fraction]:
    """The likeliest reading of each number in a text, in order; see `written_numbers`.

    Example:
        >>> numbers("合計は１，２３４．５円、差は−３です。")
        [Fraction(2469, 2), Fraction(-3, 1)]
    """
    return [number.readings[0] for number in written_numbers(text, language) if number.readings]


def last_number(text: str, language: str | None = None) -> Fraction | None:
    """The last number in a text, None where there is none."""
    found = numbers(text, language)
    return found[-1] if found else None


# What makes a text with one number in it an expression.
_EXPRESSION = re.compile(
    r"\^|\\(?!boxed|%)[A-Za-z]|[√π±|<>≤≥]|\d[²³!]|\d\s?[xyzi]\b|\b[xyz]\s?[-+*/]|[-+*]\s?$"
    r"|\b(?:log|ln|sin|cos|tan|sqrt|pi)\b"
)
_MARK = re.compile(r"####|\banswer is\b|\b[Aa]nswer\s?:|答え[はもが：:]")


def one_number(text: str, language: str | None = None) -> Number | None:
    """The number that a reference is; None where it is none, several, or an expression.

    Of a solution that marks its result (`#### 18`, `\\boxed{18}`, `The answer is 18`, 答えは18) it
    is the result.
    """
    result = boxed(text) or text
    marks = [match.end() for match in _MARK.finditer(result)]
    result = result[max(marks, default=0) :].strip(" \n*_`")  # Markdown's emphasis
    found = written_numbers(result, language)
    if len(found) != 1 or not found[0].readings:
        return None
    rest = _WRITTEN[language in DECIMAL_COMMA].sub("0", plain(result, language))
    return None if _EXPRESSION.search(rest) else found[0]


def boxed(text: str) -> str | None:
    """What stands in the last \\boxed{} of a text, None where there is none that ends."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begun = 0, start + len("\\boxed")
    for place in range(begun, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begun + 1 : place]
    return None


def _readings(text: str, comma: bool) -> tuple[Fraction, ...]:
    if len(text) > _LONGEST:
        return ()
    text = re.sub(r"\s?(?:×|\*|x)\s?10\s?\^", "e", re.sub(r"[{}\s]", "", text))
    digits, _, exponent = text.lower().partition("e")
    ten_to = Fraction(10) ** int(exponent or 0)
    return tuple(Fraction(_point(one)) * ten_to for one in _spellings(digits, comma))


def _spellings(digits: str, comma: bool) -> list[str]:
    """The digits without marks of groups, the decimal mark as a point; the likeliest first."""
    as_point = digits.replace(",", "")
    if not comma:
        return [as_point]
    as_comma = digits.replace(".", "").replace(",", ".")
    grouped = re.fullmatch(r"[1-9]\d{0,2}([.,])\d{3}", digits)
    if grouped:  # by the language's custom, and by the other
        return [as_comma, as_point]
    if "." in digits and "," in digits:
        return [as_comma if digits.rindex(",") > digits.rindex(".") else as_point]
    mark = "," if "," in digits else "."
    if digits.count(mark) > 1:
        return [digits.replace(mark, "")]
    return [digits.replace(",", ".")]


def _point(digits: str) -> str:
    return f"0{digits}" if digits.startswith(".") else digits
