"""The answer in a generated text: its last number, as people write numbers."""

import re
from decimal import Decimal, InvalidOperation

# Groups of three digits after commas, or plain digits; a decimal part; right before them a minus
# that is no subtraction ("5-3" holds 5 and 3, "は-3" and "= -3" hold -3), no bullet ("- 3") and
# no hyphen ("GPT-3").
_NUMBER = re.compile(r"(?:(?<![\d)A-Za-z])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")

_ASCII = {0xFF00 + code - 0x20: code for code in range(0x21, 0x7F)}

# Minus signs and hyphens. The long vowel mark is one only where no kana stands before it: "ー3",
# but not "メーター3".
_MINUS = re.compile(r"[−–‐‑﹣]|(?<![\u3040-\u30ff])ー(?=\d)")


def numbers(text: str) -> list[Decimal]:
    """All numbers in a text, in order.

    Full-width digits and signs are read as their ASCII forms, commas as thousands separators
    where they stand between groups of three digits, and a hyphen or minus sign right before a
    number as its sign unless a digit, a closing parenthesis or a Latin letter stands before it.

    Example:
        >>> numbers("合計は１，２３４．５円、差は−３です。")
        [Decimal('1234.5'), Decimal('-3')]
    """
    plain = _MINUS.sub("-", to_ascii(text))
    return [_decimal(match.group()) for match in _NUMBER.finditer(plain)]


def to_ascii(text: str) -> str:
    """The text with full-width forms, and no others, as the ASCII characters they are.

    NFKC would do more harm: it reads 5² as 52 and 50㎡ as 50m2.
    """
    return text.translate(_ASCII)


def last_number(text: str) -> Decimal | None:
    """The last number in a text, None where there is none."""
    found = numbers(text)
    return found[-1] if found else None


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:  # a digit of another script that Decimal does not know
        return Decimal("NaN")
