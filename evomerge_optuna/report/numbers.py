"""How scores are written."""

import math

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.spec import CUT_OFF, Metric
from evomerge_optuna.study.result import Scores

_IN_PERCENT = ("share", "grade")


def worth_showing(scores: Scores) -> Scores:
    """All scores but those of a thinking that was never cut off."""
    return {
        target: score
        for target, score in scores.items()
        if score.value or target.partition(".")[2] != CUT_OFF
    }


def show_number(value: float, metric: Metric, sign: str = "") -> str:
    """'69.2%' for a share or a grade, else a plain number; `sign` '+' gives '+1.3%'."""
    if not math.isfinite(value):
        return str(value)
    if metric.kind not in _IN_PERCENT:
        return f"{value:{sign}.3f}"
    return f"{100 * value:{sign}.1f}%"


def show_score(score: Score | None, metric: Metric) -> str:
    """'69.2% (65.0 to 73.1)', or a plain number."""
    if score is None:
        return "-"
    low, high = (show_number(x, metric).removesuffix("%") for x in (score.low, score.high))
    return f"{show_number(score.value, metric)} ({low} to {high})"


def show_score_and_n(score: Score | None, metric: Metric) -> str:
    """'69.2% (65.0 to 73.1), n=500': for a table whose rows may be of different problems."""
    return show_score(score, metric) + ("" if score is None else f", n={score.n}")


def show_seconds(seconds: float) -> str:
    """'0.84 s', '12 s', '5 min', '2 h 05 min', '3 days 4 h'."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"
