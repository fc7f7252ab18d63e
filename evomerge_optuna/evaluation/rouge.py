"""ROUGE-L of texts in any language, by Google's rouge-score."""

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

# Words, but each kana, Han or Thai character, written without blanks, for itself. The long vowel
# mark and the iteration mark belong to kana and Han.
_ALONE = "\u0e00-\u0e7f\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(f"[{_ALONE}]|[^\\W_{_ALONE}]+")


def tokens(text: str) -> list[str]:
    """Characters where a script has no blanks between words, lower-case words elsewhere.

    Full-width and half-width forms are alike (NFKC); punctuation is left out. Of ASCII text these
    are the tokens of rouge-score itself, unstemmed.

    Example:
        >>> tokens("東京タワーは３３３ m。")
        ['東', '京', 'タ', 'ワ', 'ー', 'は', '333', 'm']
    """
    found = _TOKEN.findall(unicodedata.normalize("NFKC", text).lower())
    return [token for token in found if any(c.isalnum() for c in token)]


def rouge_l(text: str, reference: str) -> float:
    """The F1 of the longest common subsequence of `tokens` (Lin 2004), in [0, 1]."""
    return float(_scorer().score(reference, text)["rougeL"].fmeasure)


@cache
def _scorer() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Tokens(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return tokens(text)

    return RougeScorer(["rougeL"], tokenizer=Tokens())
