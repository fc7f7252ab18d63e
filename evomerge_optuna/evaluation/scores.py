"""Scores: a mean over problems with its 95% interval."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")

Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Score:
    """A metric over n problems and its 95% confidence interval."""

    value: float
    low: float
    high: float
    n: int


def proportion(outcomes: Sequence[bool]) -> Score:
    """The share of true outcomes with Wilson's interval (Wilson 1927)."""
    from scipy.stats import binomtest  # takes a third of a second to import

    n, right = len(outcomes), sum(outcomes)
    p = right / n
    found = binomtest(right, n).proportion_ci(method="wilson")
    # The interval has the share in it but for rounding.
    return Score(p, min(p, float(found.low)), max(p, float(found.high)), n)


def mean(values: Sequence[float], transform: Callable[[float], float] = lambda x: x) -> Score:
    """The transformed mean of the values with the normal approximation's interval."""
    n = len(values)
    centre = math.fsum(values) / n
    spread = math.sqrt(math.fsum((x - centre) ** 2 for x in values) / max(n - 1, 1))
    half = Z * spread / math.sqrt(n)
    return Score(transform(centre), transform(centre - half), transform(centre + half), n)


def bootstrapped(items: Sequence[T], statistic: Callable[[Sequence[T]], float]) -> Score:
    """Any statistic of the items with the percentile interval of 200 resamples (Efron 1979)."""
    draw = random.Random(0)
    found = sorted(statistic(draw.choices(items, k=len(items))) for _ in range(200))
    value = statistic(items)
    return Score(value, min(value, found[4]), max(value, found[-5]), len(items))


def drop(kind: str, before: Score, after: Score) -> float:
    """How likely noise alone makes a score fall as far, or farther; of shares, perplexities, means.

    Args:
        kind: of the metric.
    """
    if kind == "share":
        return drop_of_proportion(before, after)
    return drop_of_mean(before, after, _log if kind == "perplexity" else float)


def _log(value: float) -> float:
    return math.log(value) if value > 0 else -math.inf


def drop_of_proportion(before: Score, after: Score) -> float:
    """How likely noise alone makes a share fall as far from one sample to another, or farther.

    The one-sided p of the pooled z-test of two proportions; 0.5 where they are equal.
    """
    pooled = (before.n * before.value + after.n * after.value) / (before.n + after.n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / before.n + 1 / after.n))
    return _tail((before.value - after.value) / error) if error else 0.5


def drop_of_mean(before: Score, after: Score, inverse: Callable[[float], float]) -> float:
    """How likely noise alone makes a transformed mean fall as far, or farther.

    The one-sided p of the z-test of two means, with the errors that their intervals tell.

    Args:
        inverse: of the transform, so that the interval is symmetrical again.
    """
    centres = [inverse(score.value) for score in (before, after)]
    halves = [inverse(s.high) - c for s, c in zip((before, after), centres, strict=True)]
    error = math.hypot(*halves) / Z
    return _tail((centres[0] - centres[1]) / error) if error else 0.5


def _tail(z: float) -> float:
    return math.nan if math.isnan(z) else NormalDist().cdf(-z)
