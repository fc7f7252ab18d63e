"""Samplers that keep nothing between trials, so that a resumed study continues as if never stopped.

Optuna's CMA-ES keeps its state in the trials' attributes; all that a sampler object holds is its
random stream. A fresh sampler for each trial, seeded from the spec's seed and the trial's position
in the study, therefore gives the same trial whether or not the process was stopped before it.
"""

import copy
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler
from optuna.trial import FrozenTrial

from evomerge_optuna.spec import SamplerSpec


class PositionedCmaEsSampler(CmaEsSampler):
    """CMA-ES whose random numbers depend on a trial's position, not on its number.

    Optuna adds the trial's number to its seed, and an interrupted trial takes a number though its
    retry repeats it; the position counts both as one.
    """

    def __init__(self, *, seed: int, position: int, popsize: int | None) -> None:
        super().__init__(
            seed=_stream(seed, position), popsize=popsize, warn_independent_sampling=False
        )
        self._position = position

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        positioned = copy.copy(trial)
        positioned.number = self._position
        return super().sample_relative(study, positioned, search_space)


def make_sampler(spec: SamplerSpec, position: int) -> BaseSampler:
    """The sampler of the trial at this position (0 for the first) of a study."""
    return PositionedCmaEsSampler(seed=spec.seed, position=position, popsize=spec.population)


def _stream(seed: int, position: int) -> int:
    """A seed of its own for each position, below 2**31 as cmaes wants it."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0]) % (2**31 - 1)
