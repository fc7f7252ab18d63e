"""What a text is worth by each scorer; ROUGE-L against rouge-score and against hand counts.

Covers evaluation.expressions and evaluation.rouge, too.
"""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from evomerge_optuna.evaluation import expressions
from evomerge_optuna.evaluation.rouge import rouge_l, tokens
from evomerge_optuna.evaluation.scorers import best_score, score_text
from evomerge_optuna.spec import GenerateTask


def scorer(written: Any) -> Any:
    content = {"type": "generate", "data": "d", "scorer": written}
    return GenerateTask.model_validate(content).scorer


GSM8K = r"#### (\-?[0-9.,]+)"


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
        # A regex that matches in the reference reads that, too, and numbers are numbers.
        ({"regex": GSM8K}, "so\n#### 18", "3*6=<<3*6=18>>18\n#### 18", "18", True),
        ({"regex": GSM8K}, "so\n#### 19", "3*6=<<3*6=18>>18\n#### 18", "19", False),
        ({"regex": GSM8K}, "#### 72000", "#### 72,000", "72000", True),
        ({"regex": GSM8K}, "#### 72,000.", "72000", "72,000.", True),
        ({"regex": GSM8K}, "#### 18.00", "#### 18", "18.00", True),
        ({"regex": "#### (.+)"}, "#### $18", "#### 18", "$18", True),
        ({"regex": "#### (.+)"}, "#### 18 apples", "#### 18", "18 apples", False),
        ({"regex": "code (.+)"}, "code 02116", "2116", "02116", False),
        ({"regex": "答え：(.)"}, "答え：B", "答え：B、理由は", "B", True),
        ("last_number", "The answer is 1/4.", "3/4", "0.25", False),
        ("last_number", "25%", "0.25", "25%", True),
        ("last_number", "The train leaves at 9:30.", "1:30", "30", False),
        ("last_number", "x = 7, y = 5", "x = 3, y = 5", "5", False),
        ("last_number", "9" * 5000, "9", "a huge number", False),
        ("released_number", "3/4", "0.75", "4", False),
        ("exact", "02116", "2116", "02116", False),
        # Expressions
        ("math", r"so \boxed{\dfrac{1}{2}}", "0.5", r"\dfrac{1}{2}", True),
        ("math", r"The answer is $\sqrt{12}$.", r"2\sqrt{3}", r"\sqrt{12}", True),
        ("math", "$x^2+2x+1$", "(x+1)^2", "x^2+2x+1", True),
        ("math", r"$\{2, 1\}$", r"\{1, 2\}", r"\{2, 1\}", True),
        ("math", "The answer is $y = 5, x = 3$.", "x = 3, y = 5", "y = 5, x = 3", True),
        ("math", "So x = 3, y = 5.", "x = 3, y = 5", "x = 3, y = 5", True),
        ("math", "x = 7, y = 5", "x = 3, y = 5", "5", False),
        ("math", "The train leaves at 1:30.", "1:30", "1:30", True),
        ("math", "The train leaves at 9:30.", "1:30", "9", False),
        ("math", "答えは18です", "#### 18", "18", True),
        ("math", "答えは十八です", "18", "18", True),
        ("math", "the profit is -$5", "-5", "-5", True),
        ("math", "0.5", "50%", "0.5", True),
        ("math", r"The answer is \frac{3}{4}.", "0.75", "0.75", True),
        ("math", r"#### \$72{,}000", "72000", "72000", True),
        ("math", r"2\frac{1}{2}", "2.5", "2.5", True),
        ("math", "答えは**18**です。", "18", "18", True),
        ("math", r"\boxed{**18**}", "18", "**18**", True),
        ("math", r"As 3 * 6 = 18, \boxed{¾}", "18", "¾", False),
        ("math", "I do not know.", "18", None, False),
        ("math", "", "18", None, False),
    ],
)
def test_score_text(
    written: Any, text: str, reference: str, found: str | None, right: bool
) -> None:
    assert score_text(scorer(written), text, reference) == (found, float(right))


@pytest.mark.parametrize(
    ("text", "right"),
    [("Es dauert 3,5 Stunden.", True), (r"\boxed{3{,}5}", True), ("5 Stunden", False)],
)
def test_math_reads_numbers_by_the_language(text: str, right: bool) -> None:
    assert score_text("math", text, "3.5", "de")[1] == right
    for written in ("72.000", "72,000", "72{,}000", "72 000"):
        assert score_text("math", f"Das sind {written} Euro.", "72000", "de")[1] == 1


def test_any_of_several_answers_is_right() -> None:
    assert best_score("exact", "four", ["4", "four"]) == ("four", 1.0)
    assert best_score("last_number", "It is 4.", ["four", "4"]) == ("4", 1.0)
    assert best_score("contains", "five", ["4", "four"]) == (None, 0.0)
    assert best_score("rouge_l", "a b c", ["a", "a b"])[1] == pytest.approx(0.8)


def test_an_endless_expression_is_given_up_and_other_timers_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(expressions, "_SECONDS", 1)
    rung = []
    previous = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert score_text("math", "$9^{9^{9^9}}$", "5")[1] == 0
        while not rung:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert score_text("math", "$1+1$", "2")[1] == 1


def test_outside_the_main_thread_there_is_no_timer() -> None:
    with ThreadPoolExecutor() as threads:
        assert threads.submit(score_text, "math", "$1+1$", "2").result()[1] == 1


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
