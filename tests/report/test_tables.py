"""Tables and JSON of scores, the odd ones too.

Covers report.columns and report.numbers, too.
"""

import json
import math

import pytest
from rich.console import Console

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.report.numbers import show_score
from evomerge_optuna.report.tables import final_json, final_table
from evomerge_optuna.results.final_scores import FinalScores
from evomerge_optuna.spec import Metric
from tests.conftest import SpecMaker

SHARE = Metric("accuracy", "share", "high")
PERPLEXITY = Metric("perplexity", "perplexity", "low")


@pytest.mark.parametrize(
    ("score", "metric", "text"),
    [
        (None, SHARE, "-"),
        (Score(0.692, 0.65, 0.731, 500), SHARE, "69.2% (65.0 to 73.1)"),
        (Score(0.5, 0.25, 0.75, 4), Metric("f1", "grade", "high"), "50.0% (25.0 to 75.0)"),
        (Score(3.0, 2.5, math.inf, 9), PERPLEXITY, "3.000 (2.500 to inf)"),
        (Score(math.nan, math.nan, math.nan, 9), PERPLEXITY, "nan (nan to nan)"),
        (Score(math.nan, math.nan, math.nan, 9), SHARE, "nan (nan to nan)"),
    ],
)
def test_show_score(score: Score | None, metric: Metric, text: str) -> None:
    assert show_score(score, metric) == text


def test_a_score_that_is_not_finite(make_spec: SpecMaker) -> None:
    score = Score(math.nan, 2.0, math.inf, 9)
    rows = [FinalScores("a", {"dev": {"words.perplexity": score}})]
    found = json.loads(json.dumps(final_json("tiny", make_spec(), rows), allow_nan=False))
    assert found["scores"]["a"]["dev"] == {
        "words.perplexity": {"value": None, "low": 2.0, "high": None, "n": 9}
    }
    console = Console(width=200)
    with console.capture() as capture:
        console.print(final_table("tiny", make_spec(), rows))
    assert "nan (2.000 to inf)" in capture.get()
