"""Mathematical expressions compared by what they are: math-verify, which Hugging Face keeps."""

import logging
import re
import signal
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache

from evomerge_optuna.evaluation.answers import Number, boxed, one_number, respelt
from evomerge_optuna.evaluation.notation import plain, to_ascii

_Parsed = tuple[object, ...]  # expressions of sympy, or their texts

_SECONDS = 5  # for one expression: a model may write 9**9**9**9
_LATEX = re.compile(r"\\|\$[^$]*\$")
_BOLD = re.compile(r"(?<![A-Za-z0-9)])\*\*(?=\S)(.+?)(?<=\S)\*\*(?![A-Za-z0-9(])")
# Where a script without blanks between words touches a number, which math-verify takes for a word.
_EDGE = re.compile(r"(?<=[\u3040-\u30ff\u4e00-\u9fff])(?=[-\d$\\])|(?<=[\d$}])(?=[\u3040-\u9fff])")


def same_expression(
    text: str, reference: str, language: str | None = None
) -> tuple[str | None, bool]:
    """What math-verify found in the text (None: nothing), and is that equal to the reference?

    Numbers outside of LaTeX, and those in \\boxed{}, are read as `answers` reads them, by the
    language's custom. A text that ends with a reference that is no number is equal to it.
    """
    text, reference = (unicodedata.normalize("NFC", to_ascii(part)) for part in (text, reference))
    number, in_box = one_number(reference, language), boxed(text)
    if number is None and _ends_with(text, reference):
        return reference, True
    given = None if in_box is None else one_number(in_box, language)
    if number is not None and given is not None:
        return in_box, given.equals(number)
    found = _parsed(_readable(text, language, number))
    shown = next((part for part in found if isinstance(part, str)), None)
    wanted = _number(number) if number is not None else _reference(reference)
    return (shown if found else None), bool(found and wanted) and _equal(wanted, found)


def is_expression(reference: str, language: str | None = None) -> bool:
    """Does math-verify read something in the reference that could be compared?"""
    number = one_number(reference, language)
    return number is not None or any(not isinstance(p, str) for p in _reference(reference))


def _ends_with(text: str, reference: str) -> bool:
    ends = rf"(?<![\w.,]){re.escape(' '.join(reference.split()))}[\s.。!]*$"
    return bool(reference.strip()) and re.search(ends, " ".join(text.split())) is not None


def _number(number: Number) -> _Parsed:
    values = [*number.readings, *(value / 100 for value in number.readings if number.percent)]
    return tuple(part for value in values for part in _exactly(value))


@lru_cache(maxsize=4096)
def _exactly(value: Fraction) -> _Parsed:
    return _parsed(f"$\\frac{{{value.numerator}}}{{{value.denominator}}}$")


@lru_cache(maxsize=4096)
def _reference(text: str) -> _Parsed:
    result = boxed(text) or text.rpartition("####")[2].strip()
    return _parsed(result if _LATEX.search(result) and "$" in result else f"${result}$")


def _readable(text: str, language: str | None, number: Number | None) -> str:
    """The text as math-verify reads it best; of LaTeX only numbers can be written otherwise."""
    text = _BOLD.sub(r" \1 ", text)
    if not _LATEX.search(plain(text, language)):
        text = respelt(text, language, number)
    text = re.sub(r"[-−]\s?(\\?\$)(?=[\d.])", r"\1-", text)
    return _EDGE.sub(" ", text)


def _parsed(text: str) -> _Parsed:
    from math_verify import parse

    with _quiet(), _timed() as seconds:
        return tuple(parse(text, parsing_timeout=seconds))


def _equal(wanted: _Parsed, found: _Parsed) -> bool:
    from math_verify import verify

    with _quiet(), _timed() as seconds:
        return bool(verify(list(wanted), list(found), timeout_seconds=seconds))


@contextmanager
def _timed() -> Iterator[int]:
    """The seconds that math-verify may take, by SIGALRM; 0, without an end, in other threads.

    Other code that waits for that signal gets it when it is due; code that would set it waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield 0
        return
    others = {signal.SIGTERM, signal.SIGINT}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, others)
    start, (left, _) = time.monotonic(), signal.setitimer(signal.ITIMER_REAL, 0)
    try:
        yield _SECONDS
    finally:
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - time.monotonic() + start))
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without log lines about what in a text is no expression."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(disabled)
