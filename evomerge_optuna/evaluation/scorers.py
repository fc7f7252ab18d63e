"""Scorers: what a generated text is worth beside the answers of the data."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal

from evomerge_optuna.evaluation.answers import one_number, written_numbers
from evomerge_optuna.evaluation.expressions import same_expression
from evomerge_optuna.evaluation.notation import to_ascii
from evomerge_optuna.evaluation.rouge import rouge_l
from evomerge_optuna.spec import Regex, Scorer

_RELEASED = re.compile(r"\d*\.?\d+")
# A number and nothing else, as a regex finds it; 007 and 02116 are no numbers but names.
_BARE = re.compile(r"[$€£¥]?\s?[-+]?[$€£¥]?(?!0\d)\d[\d,.]*?%?[.,]?")


def best_score(
    scorer: Scorer, text: str, references: Sequence[str], language: str | None = None
) -> tuple[str | None, float]:
    """What the scorer found in the text, and its score beside the best of the right answers."""
    scores = [score_text(scorer, text, reference, language) for reference in references]
    return max(scores, key=lambda found: found[1], default=(None, 0.0))


def score_text(
    scorer: Scorer, text: str, reference: str, language: str | None = None
) -> tuple[str | None, float]:
    """What the scorer found in the text (None: nothing), and its score in [0, 1].

    `last_number` compares the text's last number with the reference's one; `released_number` does,
    too, but reads the text as the paper's release, which splits 1,234 and knows no minus sign;
    `math` compares expressions; `exact` compares the texts; `contains` is right where the reference
    is part of the text; a regex compares its first group, or all of it, where it first matches,
    with what it finds in the reference, or else with all of that, as numbers where both are some;
    `rouge_l` is ROUGE-L's F1. Texts are compared with their full-width forms as ASCII and any white
    space as one blank; case counts.

    Args:
        language: an ISO 639 code, by which numbers are read.
    """
    if scorer == "last_number":
        numbers, wanted = written_numbers(text, language), one_number(reference, language)
        right = bool(numbers) and wanted is not None and numbers[-1].equals(wanted)
        return (str(numbers[-1]) if numbers else None), float(right)
    if scorer == "released_number":
        digits, wanted = _RELEASED.findall(text), one_number(reference, language)
        found = digits[-1] if digits else None
        right = found is not None and wanted is not None and Decimal(found) in wanted.readings
        return found, float(right)
    if scorer == "math":
        found, right = same_expression(text, reference, language)
        return found, float(right)
    if scorer == "rouge_l":
        return text, rouge_l(text, reference)
    if scorer == "contains":
        inside = normal(reference) in normal(text)
        return (reference if inside else None), float(inside)
    if isinstance(scorer, Regex):
        found, wanted_text = _first(scorer, text), _first(scorer, reference) or reference
        return found, float(found is not None and _same(found, wanted_text, language))
    return text, float(normal(text) == normal(reference))


def normal(text: str) -> str:
    """The text as it is compared: NFC, full-width forms as ASCII, white space as one blank."""
    return " ".join(to_ascii(unicodedata.normalize("NFC", text)).split())


def _same(found: str, wanted: str, language: str | None) -> bool:
    """Are they the same text, or the same number?"""
    found, wanted = normal(found), normal(wanted)
    if found == wanted:
        return True
    if not (_BARE.fullmatch(found) and _BARE.fullmatch(wanted)):
        return False
    one, other = one_number(found, language), one_number(wanted, language)
    return one is not None and other is not None and one.equals(other)


def _first(scorer: Regex, text: str) -> str | None:
    match = re.search(scorer.regex, text)
    return match and (match[1] if match.re.groups else match[0])
