"""Every combination of choices, each once, in random order."""

import itertools
import math
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.search.samplers import Positioned, Settings
from evomerge_optuna.study.schema import INTERRUPTED

_TAKEN = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL)
_SPARSE = 4  # combinations for each one taken: a random one is hardly ever taken


class PositionedBruteForce(Positioned, RandomSampler):
    """Tries each combination of choices once; once all are tried, any again.

    Optuna's own looks for its trial among those that are stored, and ours is drawn before.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(seed=settings.stream)
        self._draws = np.random.default_rng(settings.stream)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        names = sorted(search_space)
        choices = [choices_of(search_space[name]) for name in names]
        taken = {
            tuple(other.params.get(name) for name in names)
            for other in study.get_trials(deepcopy=False, states=_TAKEN)
            if INTERRUPTED not in other.user_attrs
        }
        total = math.prod(map(len, choices))
        if total > _SPARSE * len(taken):
            return dict(zip(names, self._untaken(choices, taken), strict=True))
        every = [found for found in itertools.product(*choices) if found not in taken]
        if not every:
            return {}  # drawn one by one, at random
        return dict(zip(names, every[self._draws.integers(len(every))], strict=True))

    def _untaken(
        self, choices: list[tuple[Any, ...]], taken: set[tuple[Any, ...]]
    ) -> tuple[Any, ...]:
        while True:
            found = tuple(among[self._draws.integers(len(among))] for among in choices)
            if found not in taken:
                return found


def choices_of(distribution: BaseDistribution) -> tuple[Any, ...]:
    """All values of a list of choices, or of a range of integers."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution)  # `check_sampler` refuses others
    return tuple(range(distribution.low, distribution.high + 1, distribution.step))
