"""What a text is worth by each scorer; ROUGE-L against rouge-score and against hand counts."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from evomerge_optuna.evaluation.rouge import rouge_l, tokens
from evomerge_optuna.evaluation.scorers import score_text
from evomerge_optuna.spec import GenerateTask


def scorer(written: Any) -> Any:
    content = {"type": "generate", "data": "d", "scorer": written}
    return GenerateTask.model_validate(content).scorer


@pytest.mark.parametrize(
    ("written", "text", "reference", "found", "right"),
    [
        ("last_number", "3足す5は8です", "#### 8", "8", True),
        ("last_number", "ありません", "8", None, False),
        ("released_number", "答えは1,234です", "1,234", "234", False),
        ("released_number", "答えは-3です", "3", "3", True),
        ("released_number", "答えは−3です。", "-3", "3", False),
        ("released_number", "約.50です", "0.5", ".50", True),
        ("released_number", "ありません", "3", None, False),
        ("exact", "東京", "東京", "東京", True),
        ("exact", " 東京\n", "東京", " 東京\n", True),
        ("exact", "ＡＢＣ　１", "ABC 1", "ＡＢＣ　１", True),
        ("exact", "東京。", "東京", "東京。", False),
        ("exact", "tokyo", "Tokyo", "tokyo", False),
        ("contains", "首都は東京です。", "東京", "東京", True),
        ("contains", "首都は京都です。", "東京", None, False),
        ({"regex": "答え：(.)"}, "答え：B、答え：C", "B", "B", True),
        ({"regex": "答え：(.)"}, "答え：C、答え：B", "B", "C", False),
        ({"regex": "答え：(.)"}, "B", "B", None, False),
        ({"regex": "[A-D]"}, "多分Bです", "B", "B", True),
        ({"regex": "答え：(.)"}, "答え：Ｂ", "B", "Ｂ", True),
        ({"regex": "x(y)?"}, "x", "", None, False),
    ],
)
def test_score_text(
    written: Any, text: str, reference: str, found: str | None, right: bool
) -> None:
    assert score_text(scorer(written), text, reference) == (found, float(right))


def test_japanese_is_compared_character_by_character() -> None:
    assert tokens("東京タワーは３３３ mです。") == [*"東京タワーは", "333", "m", *"です"]
    # 6 of 8 and of 9 characters are common in order; punctuation does not count.
    assert rouge_l("猫が椅子に座った", "大黒猫が椅子に座る。") == pytest.approx(2 * 6 / (8 + 9))
    assert rouge_l("ｶﾞﾗｽ", "ガラス") == 1
    assert rouge_l("", "東京") == 0


@given(*[st.text(st.characters(codec="ascii"))] * 2)
def test_of_ascii_it_is_rouge_scores_own(text: str, reference: str) -> None:
    plain = RougeScorer(["rougeL"]).score(reference, text)["rougeL"].fmeasure
    assert rouge_l(text, reference) == plain
