"""Scorers: what a generated text is worth beside the answer of the data."""

import re
import unicodedata
from decimal import Decimal

from evomerge_optuna.evaluation.answers import last_number, to_ascii
from evomerge_optuna.evaluation.rouge import rouge_l
from evomerge_optuna.spec import Regex, Scorer

_RELEASED = re.compile(r"\d*\.?\d+")


def score_text(scorer: Scorer, text: str, reference: str) -> tuple[str | None, float]:
    """What the scorer found in the text (None: nothing), and its score in [0, 1].

    `last_number` compares the last numbers of both; `released_number` does, too, but reads the text
    as the paper's release, which splits 1,234 and knows no minus sign; `exact` compares the texts;
    `contains` is right where the reference is part of the text; a regex compares its first group,
    or all of it, where it first matches; `rouge_l` is ROUGE-L's F1. Texts are compared with their
    full-width forms as ASCII and any white space as one blank; case counts.
    """
    if scorer == "last_number":
        number, wanted = last_number(text), last_number(reference)
        return _shown(number), float(wanted is not None and number == wanted)
    if scorer == "released_number":
        digits, wanted = _RELEASED.findall(text), last_number(reference)
        found = digits[-1] if digits else None
        return found, float(found is not None and wanted is not None and Decimal(found) == wanted)
    if scorer == "rouge_l":
        return text, rouge_l(text, reference)
    if scorer == "contains":
        inside = normal(reference) in normal(text)
        return (reference if inside else None), float(inside)
    found = _first(scorer, text) if isinstance(scorer, Regex) else text
    return found, float(found is not None and normal(found) == normal(reference))


def normal(text: str) -> str:
    """The text as it is compared: NFC, full-width forms as ASCII, white space as one blank."""
    return " ".join(to_ascii(unicodedata.normalize("NFC", text)).split())


def _first(scorer: Regex, text: str) -> str | None:
    match = re.search(scorer.regex, text)
    return match and (match[1] if match.re.groups else match[0])


def _shown(number: object) -> str | None:
    return None if number is None else str(number)
