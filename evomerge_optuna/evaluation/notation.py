"""Numbers as people, languages and LaTeX write them, rewritten as plain digits."""

import re
import unicodedata
from fractions import Fraction

# Languages whose decimal mark is a comma, and which group thousands by points or blanks. In Spanish
# both customs are at home; how "1,234" is read in them, see `answers`.
DECIMAL_COMMA = frozenset(
    re.findall(
        r"\w+",
        "az be bg bs ca cs da de el es et eu fi fr gl hr hu hy id is it ka kk lt lv mk nb nl nn no "
        "pl pt ro ru sk sl sq sr sv tr uk uz vi",
    )
)

_ASCII = {0xFF00 + code - 0x20: code for code in range(0x21, 0x7F)}

# Minus signs and hyphens. The long vowel mark is one only where no kana stands before it: "ー3",
# but not "メーター3".
_MINUS = re.compile(r"[−–‐‑﹣]|(?<![\u3040-\u30ff])ー(?=\d)")

# "10 minus 3" is a subtraction.
_MINUS_WORD = re.compile(
    r"(?:マイナス|\b[Nn]egative\s|(?:^|(?<=[:=]\s)|(?<=\b(?:is|of|to|at|be)\s)|(?<=\bwas\s))"
    r"[Mm]inus\s)(?=[\d$€£¥])"
)

_CURRENCY = r"(?:(?:US|CA|AU|NZ|HK|[ACRS])?\$|[€£¥₹₩₽₫฿])"

_SCALES = {"thousand": 3, "lakh": 5, "million": 6, "crore": 7, "billion": 9, "trillion": 12}
_SCALES_OF = {  # of the languages that have their own; "billion" is 10^12 in many of them
    "de": {
        "tausend": 3,
        "million": 6,
        "millionen": 6,
        "milliarde": 9,
        "milliarden": 9,
        "mio": 6,
        "mrd": 9,
    },
    "es": {"mil": 3, "millón": 6, "millones": 6, "billones": 12},
    "fr": {"mille": 3, "million": 6, "millions": 6, "milliard": 9, "milliards": 9},
    "it": {"mila": 3, "milione": 6, "milioni": 6, "miliardo": 9, "miliardi": 9},
    "pt": {"mil": 3, "milhão": 6, "milhões": 6},
}
_OF_MONEY = {"k": 3, "m": 6, "mn": 6, "mio": 6, "b": 9, "bn": 9, "mrd": 9}

_PERCENT = re.compile(
    r"(?<=\d)\s?(?:\\%|percent\b|per cent\b|パーセント|prozent\b|por ciento\b|pour cent\b"
    r"|per cento\b|por cento\b)",
    re.IGNORECASE,
)

_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")

_LATEX = [
    (re.compile(r"\\(?:left|right|!|displaystyle)"), ""),
    (re.compile(r"\\(?:text|mathrm|textbf|mathbf|textrm|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"(?<=\d)\{([.,])\}(?=\d)"), r"\1"),
    (re.compile(r"\\[,;:]|\\\s|(?<=\d)~(?=\d)"), "\N{THIN SPACE}"),
    (re.compile(r"\\([$])"), r"\1"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "×"),
]
_FRACTION = re.compile(
    r"(?:(?P<whole>\d)\s*)?\\[cdt]?frac\s*(?:\{(?P<n>[^{}]*)\}|(?P<n1>\d))"
    r"\s*(?:\{(?P<d>[^{}]*)\}|(?P<d1>\d))"
)
_PLAIN = re.compile(r"\s*-?\s*[\d.,\N{THIN SPACE}]*\d\s*")

_ARABIC = str.maketrans(
    {"\N{ARABIC DECIMAL SEPARATOR}": ".", "\N{ARABIC THOUSANDS SEPARATOR}": ","}
)

_GROUP = "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}\N{FIGURE SPACE}"
_GROUP += "\N{PUNCTUATION SPACE}'’_"


def plain(text: str, language: str | None = None) -> str:
    """The text with its numbers as digits, signs, `.` and `,`, and fractions as 3/4.

    Args:
        language: an ISO 639 code; where a decimal mark is a comma, blanks group thousands, and
            some have words for them.
    """
    text = _MINUS.sub("-", to_ascii(text).translate(_ARABIC))
    for pattern, to in _LATEX:
        text = pattern.sub(to, text)
    text = _FRACTION.sub(_fraction, text)
    text = re.sub(r"(\d)?([¼-¾⅐-⅞↉])", _vulgar, text).replace("⁄", "/")
    text = _grouped(text, language)
    text = _kanji(text)
    text = re.sub(r"(?<![\d.])(?:(\d+)と)?(\d+)分の(\d+)", _japanese_fraction, text)
    text = _MINUS_WORD.sub("-", text)
    text = _PERCENT.sub("%", text)
    text = _scaled(text, language)
    text = re.sub(rf"-{_CURRENCY}\s?(?=[\d.])", "-", text)
    return re.sub(r"(×\s?10)([⁻⁰¹²³⁴-⁹]+)", _power, text)


def to_ascii(text: str) -> str:
    """The text with full-width forms, and no others, as the ASCII characters they are.

    NFKC would do more harm: it reads 5² as 52 and 50㎡ as 50m2.
    """
    return text.translate(_ASCII)


def _fraction(match: re.Match[str]) -> str:
    top, bottom = match["n"] or match["n1"] or "", match["d"] or match["d1"] or ""
    if not (_PLAIN.fullmatch(top) and _PLAIN.fullmatch(bottom)):
        return match[0]
    before = f"{match['whole']} " if match["whole"] else ""
    return f"{before}{top.replace(' ', '')}/{bottom.strip()}"


def _vulgar(match: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", match[2])
    return f"{match[1]} {fraction}" if match[1] else fraction


def _japanese_fraction(match: re.Match[str]) -> str:
    whole, bottom, top = match.groups()
    return f"{whole} {top}/{bottom}" if whole else f"{top}/{bottom}"


def _power(match: re.Match[str]) -> str:
    return f"{match[1]}^{match[2].translate(_SUPERSCRIPT)}"


def _grouped(text: str, language: str | None) -> str:
    """Without the blanks and apostrophes between groups of three digits."""
    blanks = _GROUP + (" " if language in DECIMAL_COMMA else "")
    groups = rf"(?<![\d.,])[1-9]\d{{0,2}}(?:(?:[{blanks}]\d{{3}})+|(?: 000)+)(?!\d)"
    blanks += " "
    return re.sub(groups, lambda match: re.sub(rf"[{blanks}]", "", match[0]), text)


def _scaled(text: str, language: str | None) -> str:
    """With ×10^6 for "million"; one letter is enough after a currency, or k right at a number."""
    words = _SCALES_OF.get(language or "", {} if language in DECIMAL_COMMA else _SCALES)
    number = r"\d[\d.,]*"

    def scale(match: re.Match[str]) -> str:
        word = match[2].lower()
        return f"{match[1]}×10^{words.get(word) or _OF_MONEY[word]}"

    letters = "|".join(sorted(_OF_MONEY, key=len, reverse=True))
    end = r"(?![A-Za-zÀ-ÿ0-9])"
    text = re.sub(
        rf"({_CURRENCY}\s?-?\s?{number})({letters}){end}", scale, text, flags=re.IGNORECASE
    )
    text = re.sub(rf"(\d)(k){end}", scale, text)
    if not words:
        return text
    listed = "|".join(sorted(words, key=len, reverse=True))
    return re.sub(rf"(\d)[\s-]?({listed}){end}", scale, text, flags=re.IGNORECASE)


_DIGITS = {character: value for value, character in enumerate("〇一二三四五六七八九")} | {"零": 0}
_TENS = {"十": 10, "百": 100, "千": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "億": 10**8, "兆": 10**12}
_KANJI = "".join([*_DIGITS, *_TENS, *_MYRIADS])
# Kanji among digits, as 3万5千; 千葉 and 百科 are other words.
_MIXED = re.compile(
    rf"(?<![\d.])(?<!\d,)(?:\d[\d,]*(?:\.\d+)?[{''.join(_TENS)}]?[{''.join(_MYRIADS)}]"
    rf"|\d+[百千](?![葉科貨合]))(?:\d[\d,]*(?=[{_KANJI}])|\d+|[{_KANJI}])*"
)
# Kanji alone are numbers where no other kanji stands before them, and behind them something that is
# counted or ends the word: 十八です, 十八円; but not 一番, 十分な, 唯一.
_COUNTED = (
    "です|でし|である|円|ドル|ユーロ|個|本|枚|匹|冊|頭|台|羽|杯|歳|才|点|倍|キロ|グラム|メートル|"
    "センチ|リットル|パーセント|%|分の"
)
_ENDED = (
    r"\s*$|\s*[。、．.,！？!?)）」』*\n}]|[だでにとがをはも]|"
    "人|名|分|秒|時|日|週|月|年|回|階|度|ページ"
)
_TOLD = r"(?:人|名|つ|回|度|日|年|時間|分|秒|週間|[かヶ]月|階|ページ)(?:です|でし|。|\s*$)"
_ALONE = re.compile(
    rf"(?<![一-龯々{_KANJI}])(?<!第)(?P<about>約|計)?(?:"
    rf"(?P<long>[{_KANJI}]{{2,}})(?={_COUNTED}|{_ENDED})"
    rf"|(?P<one>[二三四五六七八九十百千零〇])(?={_COUNTED}|{_TOLD}|。|\s*$)"
    rf"|(?P<first>一)(?=です|でし|円|ドル|{_TOLD}|。|\s*$))"
)


def _kanji(text: str) -> str:
    """With kanji numerals as digits, where they are numbers and nothing else."""
    text = _MIXED.sub(lambda match: _digits(match[0]) or match[0], text)

    def alone(match: re.Match[str]) -> str:
        numeral = match["long"] or match["one"] or match["first"]
        return (match["about"] or "") + (_digits(numeral) or numeral)

    return _ALONE.sub(alone, text)


def _digits(numeral: str) -> str | None:
    """A numeral of kanji and digits as digits; None where it is none, as 三十万千万."""
    total = section = Fraction(0)
    current: Fraction | None = None
    least_myriad, least_ten = Fraction(10**16), Fraction(10**4)
    for part in re.findall(rf"\d[\d,]*(?:\.\d+)?|[{''.join(_DIGITS)}]+|.", numeral):
        if part[0].isdecimal() or part[0] in _DIGITS:
            if current is not None:
                return None
            digits = "".join(str(_DIGITS.get(c, c)) for c in part if c != ",")
            current = Fraction(digits)
        elif part in _TENS and _TENS[part] < least_ten:
            least_ten = Fraction(_TENS[part])
            section += (1 if current is None else current) * _TENS[part]
            current = None
        elif part in _MYRIADS and _MYRIADS[part] < least_myriad:
            if current is None and not section:
                return None
            least_myriad, least_ten = Fraction(_MYRIADS[part]), Fraction(10**4)
            total += (section + (current or 0)) * _MYRIADS[part]
            section, current = Fraction(0), None
        else:
            return None
    return decimal_text(total + section + (current or 0))


def decimal_text(value: Fraction) -> str:
    """The number as people write it: 18, -0.75, or 2/3 where it has no last digit."""
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 5 == 0 or rest % 2 == 0:
        rest = rest // 10 if rest % 10 == 0 else rest // 5 if rest % 5 == 0 else rest // 2
        places += 1
    if rest != 1 or places > 40:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}" if places else f"{sign}{digits}"
