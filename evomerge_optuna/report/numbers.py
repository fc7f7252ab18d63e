"""How scores are written."""

import math
import re

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.spec import CUT_OFF
from evomerge_optuna.study.result import Scores

# Of lm-evaluation-harness too; what else a metric may be is no share for sure.
_SHARE = re.compile(r"(accuracy|_share|\.rouge_l|\.acc\w*|\.exact_match|\.em|\.f1)$")


def is_share(metric: str) -> bool:
    """Is it a share of problems, or a score between 0 and 1 that is read as one?"""
    return _SHARE.search(metric) is not None


def worth_showing(scores: Scores) -> Scores:
    """All scores but those of a thinking that was never cut off."""
    return {
        metric: score
        for metric, score in scores.items()
        if score.value or not metric.endswith(f".{CUT_OFF}")
    }


def show_number(value: float, metric: str, sign: str = "") -> str:
    """'69.2%' for a share, a plain number for what is none; `sign` '+' gives '+1.3%'."""
    if not math.isfinite(value):
        return str(value)
    if not is_share(metric):
        return f"{value:{sign}.3f}"
    return f"{100 * value:{sign}.1f}%"


def show_score(score: Score | None, metric: str) -> str:
    """'69.2% (65.0 to 73.1)', or a plain number for what is no share."""
    if score is None:
        return "-"
    low, high = (show_number(x, metric).removesuffix("%") for x in (score.low, score.high))
    return f"{show_number(score.value, metric)} ({low} to {high})"


def show_score_and_n(score: Score | None, metric: str) -> str:
    """'69.2% (65.0 to 73.1), n=500': for a table whose rows may be of different problems."""
    return show_score(score, metric) + ("" if score is None else f", n={score.n}")
