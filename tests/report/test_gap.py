"""The gap between search and what the search never saw, and when it is more than noise."""

import math

import pytest
from scipy.stats import chi2_contingency

from evomerge_optuna.evaluation.scores import Score, drop_of_proportion, mean, proportion
from evomerge_optuna.report.gap import gap_text, gaps
from evomerge_optuna.results.final_scores import FinalScores
from evomerge_optuna.spec import Metric, Objective

SHARE = Metric("accuracy", "share", "high")
ACCURACY = Objective(maximize="math.accuracy"), SHARE
PERPLEXITY = Objective(minimize="text.perplexity"), Metric("perplexity", "perplexity", "low")
POINTS = Objective(maximize="own.score"), Metric("score", "number")


def share(right: int, n: int) -> Score:
    return proportion([True] * right + [False] * (n - right))


def row(target: str, **scores: Score) -> FinalScores:
    return FinalScores("trial 7", {split: {target: score} for split, score in scores.items()})


def test_a_pooled_test_of_two_proportions() -> None:
    two_sided = chi2_contingency([[120, 80], [240, 260]], correction=False).pvalue
    fallen = drop_of_proportion(share(120, 200), share(240, 500))
    assert fallen == pytest.approx(two_sided / 2)
    assert drop_of_proportion(share(240, 500), share(120, 200)) == pytest.approx(1 - fallen)
    assert drop_of_proportion(share(5, 5), share(7, 7)) == 0.5


def test_a_gap_that_noise_explains() -> None:
    found = row("math.accuracy", search=share(129, 200), dev=share(127, 200), test=share(302, 500))
    assert gap_text(*ACCURACY, found) == (
        "Gap of trial 7: search 64.5%, dev 63.5% (-1.0%), test 60.4% (-4.1%)."
    )
    found.scores["dev"] = {"other.accuracy": share(1, 2)}  # of a task that alone has the split
    assert gap_text(*ACCURACY, found) == "Gap of trial 7: search 64.5%, test 60.4% (-4.1%)."


def test_a_metric_that_is_no_share() -> None:
    found = row("own.score", search=mean([9.0, 11.0, 10.0]), test=mean([1.0, 3.0, 2.0]))
    (gap,) = gaps(*POINTS, found)
    assert gap.difference == -8 and gap.p < 1e-6
    assert "search 10.000, test 2.000 (-8.000)" in gap_text(*POINTS, found)
    assert "80.0%" in gap_text(
        Objective(maximize="exam.acc"),
        SHARE,
        row("exam.acc", search=share(8, 10), test=share(8, 10)),
    )


def test_a_search_that_has_overfitted() -> None:
    found = row("math.accuracy", search=share(129, 200), test=share(250, 500))
    assert "On test it is worse than noise explains (p = 0.00025)" in gap_text(*ACCURACY, found)
    better = row("math.accuracy", search=share(100, 200), test=share(330, 500))
    assert "worse" not in gap_text(*ACCURACY, better)
    errors = Objective(minimize="math.accuracy")
    assert "On test it is worse" in gap_text(errors, SHARE, better)


def test_a_grade_is_a_mean_though_read_as_a_share() -> None:
    """Of 20 right and wrong answers so small a difference would say nothing."""
    (gap,) = gaps(
        Objective(maximize="text.rouge_l"),
        Metric("rouge_l", "grade", "high"),
        row("text.rouge_l", search=mean([0.5, 0.51] * 10), test=mean([0.46, 0.47] * 10)),
    )
    assert gap.p < 1e-9


def test_a_gap_of_perplexities() -> None:
    few = mean([2.0, 2.1, 1.9, 2.0] * 5, math.exp)
    more = mean([2.3, 2.4, 2.2, 2.3] * 5, math.exp)
    (gap,) = gaps(*PERPLEXITY, row("text.perplexity", search=few, dev=more))
    assert gap.difference == pytest.approx(math.exp(2.3) - math.exp(2.0))
    assert gap.p < 1e-9
    (gap,) = gaps(*PERPLEXITY, row("text.perplexity", search=more, dev=few))
    assert gap.p > 0.99
    odd = Score(math.inf, math.inf, math.inf, 5)
    assert "worse" not in gap_text(*PERPLEXITY, row("text.perplexity", search=odd, test=odd))


def test_nothing_to_compare() -> None:
    assert gap_text(*ACCURACY, FinalScores("trial 7", {})) == ""
    assert gap_text(*ACCURACY, row("math.accuracy", search=share(1, 2))) == ""
    assert (
        gaps(
            Objective(minimize="layers"),
            Metric("layers", "number", "low"),
            row("layers", search=share(1, 2)),
        )
        == []
    )
