"""Metrics: what a task measures, what kind of number that is, and which way is better."""

import re
from dataclasses import dataclass
from typing import Literal

# share: of the problems, those that are answered right, or that have another property.
# grade: the mean of grades between 0 and 1. Tables show shares and grades in percent.
# perplexity: exp of a mean. number: any other mean or statistic.
Kind = Literal["share", "grade", "perplexity", "number"]
Better = Literal["high", "low"]


@dataclass(frozen=True)
class Metric:
    """One number that a task gives a model on a split; None where nobody says what is better."""

    name: str
    kind: Kind
    better: Better | None = None


# The metrics of lm-evaluation-harness. It declares which way is better, and no kind: tasks of its
# library and of users give the same kind the same name.
_OF_THE_HARNESS = {
    metric.name: metric
    for metric in (
        Metric("exact_match", "share", "high"),
        Metric("em", "share", "high"),
        Metric("f1", "grade", "high"),
        Metric("perplexity", "perplexity", "low"),
        Metric("word_perplexity", "perplexity", "low"),
        Metric("byte_perplexity", "perplexity", "low"),
        Metric("bits_per_byte", "number", "low"),
        Metric("brier_score", "number", "low"),
        Metric("likelihood", "number", "high"),
        Metric("mcc", "number", "high"),
        Metric("bleu", "number", "high"),
        Metric("chrf", "number", "high"),
        Metric("ter", "number", "low"),
    )
}
_ACCURACY = re.compile(r"acc\w*|\w*accuracy")  # `acc`, `acc_norm`, `partial_accuracy` ...


def harness_metric(name: str) -> Metric:
    """A metric of lm-evaluation-harness, or of a user's own task for it."""
    if _ACCURACY.fullmatch(name):
        return Metric(name, "share", "high")
    return _OF_THE_HARNESS.get(name, Metric(name, "number"))
