"""The gap between the search split and those it never saw: how far a search has overfitted."""

from dataclasses import dataclass

from evomerge_optuna.evaluation.scores import drop
from evomerge_optuna.report.numbers import show_number
from evomerge_optuna.results.final_scores import FinalScores
from evomerge_optuna.spec import Metric, Objective

_UNLIKELY = 0.05


@dataclass(frozen=True)
class Gap:
    """A recipe's score on a split minus that on search.

    `p` is how likely noise alone makes it so much worse (one-sided).
    """

    split: str
    difference: float
    p: float


def gaps(objective: Objective, metric: Metric, row: FinalScores) -> list[Gap]:
    """Those of dev and test, as far as they and search are scored; a cost has none."""
    target = objective.target
    search = row.scores.get("search", {}).get(target)
    found = []
    for split in ("dev", "test"):
        score = row.scores.get(split, {}).get(target)
        if search is None or score is None:
            continue
        before, after = (search, score) if objective.sign > 0 else (score, search)
        found.append(Gap(split, score.value - search.value, drop(metric.kind, before, after)))
    return found


def gap_text(objective: Objective, metric: Metric, row: FinalScores) -> str:
    """One line, and a sentence for each split where the gap is more than noise; '' without one."""
    found = gaps(objective, metric, row)
    if not found:
        return ""
    target = objective.target

    def shown_on(split: str) -> str:
        return f"{split} {show_number(row.scores[split][target].value, metric)}"

    shown = [shown_on("search")] + [
        f"{shown_on(gap.split)} ({show_number(gap.difference, metric, '+')})" for gap in found
    ]
    lines = [f"Gap of {row.name}: {', '.join(shown)}."]
    lines += [
        f"On {gap.split} it is worse than noise explains (p = {gap.p:.2g}): the search has "
        f"overfitted, or the problems of {gap.split} are harder."
        for gap in found
        if gap.p < _UNLIKELY
    ]
    return " ".join(lines)
