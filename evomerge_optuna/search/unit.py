"""Numbers of a range on a scale from 0 to 1, which a logarithmic range has, too."""

import math

from optuna.distributions import FloatDistribution


def to_unit(distribution: FloatDistribution, value: float) -> float:
    """Where a value lies in its range."""
    low, high = distribution.low, distribution.high
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def from_unit(distribution: FloatDistribution, place: float) -> float:
    """The value at a place in a range; never beyond its ends."""
    low, high = distribution.low, distribution.high
    if distribution.log:
        value = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    else:
        value = low + place * (high - low)
    return min(max(value, low), high)
