"""The paper's language test, offline."""

import pytest

from evomerge_optuna.evaluation.language import is_language, known_languages, probability


@pytest.mark.parametrize(
    ("text", "language", "outcome"),
    [
        ("ケンはりんごを三個持っています。答えは8個です。", "ja", True),
        ("The answer is eight apples.", "ja", False),
        ("The answer is eight apples.", "en", True),
        ("La respuesta es dieciocho manzanas.", "es", True),
        ("まず計算します。\n3 + 5 = 8\n答えは8です。", "ja", True),
        ("", "ja", False),
        ("\n", "ja", False),
    ],
)
def test_is_language(text: str, language: str, outcome: bool) -> None:
    assert is_language(text, language) is outcome


def test_long_texts_are_judged_whole() -> None:
    english, japanese = "The answer is eight. " * 5, "答えは八個です。" * 200
    assert probability(english + japanese, "ja") > 0.5


def test_known_languages() -> None:
    assert {"ja", "en", "es"} <= known_languages()
    assert "jp" not in known_languages()
