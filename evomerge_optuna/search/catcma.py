"""CatCMA with margin (Hamano et al. 2025): CMA-ES for numbers, integers and categories at once.

The optimizer is that of `cmaes`. It is not stored: what it has been told is, trial by trial, so it
is told everything again for every trial. That takes a millisecond or so for each generation.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.search.samplers import Positioned, Settings
from evomerge_optuna.search.unit import from_unit, to_unit
from evomerge_optuna.store.optuna_internals import set_sampler_attribute
from evomerge_optuna.study.schema import CATCMA_DRAWN, CATCMA_GENERATION

if TYPE_CHECKING:
    from cmaes import CatCMAwM


class CatCmaSampler(Positioned, RandomSampler):
    """Draws generations from a normal distribution and one categorical distribution a list.

    It begins at the start, or in the middle of the ranges, with a deviation of one sixth of each. A
    start's choices have a probability of 1 - 1/n, n lists in all: one of them changes in a
    candidate.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(seed=settings.stream)
        self._settings = settings

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        axes = _Axes.of(search_space)
        optimizer = axes.optimizer(self._settings)
        sign = 1 if study.direction is StudyDirection.MINIMIZE else -1
        told = _generations(study)
        while len(scored := told[optimizer.generation]) >= optimizer.population_size:
            some = scored[: optimizer.population_size]
            with np.errstate(invalid="ignore"):  # where all of them score alike
                optimizer.tell([(axes.solution(t), sign * _value(t)) for t in some])
        optimizer.reseed_rng(self._settings.stream)
        drawn = optimizer.ask()
        set_sampler_attribute(study, trial, CATCMA_GENERATION, optimizer.generation)
        if drawn._v_raw is not None:
            set_sampler_attribute(study, trial, CATCMA_DRAWN, drawn._v_raw.tolist())
        return axes.values(drawn)


@dataclass(frozen=True)
class _Axes:
    """A search space's floats, in [0, 1] each; integers, counted from 0; and lists of choices."""

    floats: Mapping[str, FloatDistribution]
    integers: Mapping[str, IntDistribution]
    lists: Mapping[str, CategoricalDistribution]

    @classmethod
    def of(cls, space: Mapping[str, BaseDistribution]) -> "_Axes":
        return cls(
            {name: found for name, found in space.items() if isinstance(found, FloatDistribution)},
            {name: found for name, found in space.items() if isinstance(found, IntDistribution)},
            {n: found for n, found in space.items() if isinstance(found, CategoricalDistribution)},
        )

    def optimizer(self, settings: Settings) -> "CatCMAwM":
        from cmaes import CatCMAwM  # imports scipy.stats: a second

        counts = [(i.high - i.low) // i.step + 1 for i in self.integers.values()]
        widths = np.array([1.0] * len(self.floats) + [count - 1.0 for count in counts])
        return CatCMAwM(
            x_space=[[0.0, 1.0]] * len(self.floats) or None,
            z_space=[list(range(count)) for count in counts] or None,
            c_space=[len(found.choices) for found in self.lists.values()] or None,
            population_size=settings.population,
            mean=widths / 2 if settings.start is None else self._numbers(settings.start),
            cov=np.diag((widths / 6) ** 2),
            cat_param=None if settings.start is None else self._probabilities(settings.start),
            seed=settings.stream,
        )

    def solution(self, trial: FrozenTrial) -> "CatCMAwM.Solution":
        """What the optimizer drew for a trial."""
        from cmaes import CatCMAwM

        chosen = [d.choices.index(trial.params[name]) for name, d in self.lists.items()]
        most = max((len(found.choices) for found in self.lists.values()), default=0)
        drawn = trial.system_attrs.get(CATCMA_DRAWN)
        return CatCMAwM.Solution(
            c=np.eye(most, dtype=bool)[chosen] if chosen else None,
            _v_raw=None if drawn is None else np.array(drawn),
        )

    def values(self, drawn: "CatCMAwM.Solution") -> dict[str, Any]:
        """The values of parameters that the optimizer drew."""
        x, z, c = ([] if part is None else part for part in (drawn.x, drawn.z, drawn.c))
        return {
            **{
                name: from_unit(found, float(u))
                for u, (name, found) in zip(x, self.floats.items(), strict=True)
            },
            **{
                name: found.low + int(k) * found.step
                for k, (name, found) in zip(z, self.integers.items(), strict=True)
            },
            **{
                name: found.choices[int(np.argmax(chosen))]
                for chosen, (name, found) in zip(c, self.lists.items(), strict=True)
            },
        }

    def _numbers(self, start: Mapping[str, Any]) -> np.ndarray:
        floats = [to_unit(found, start[name]) for name, found in self.floats.items()]
        counted = [(start[name] - d.low) / d.step for name, d in self.integers.items()]
        return np.array([*floats, *counted])

    def _probabilities(self, start: Mapping[str, Any]) -> np.ndarray | None:
        if not self.lists:
            return None
        found = np.zeros((len(self.lists), max(len(d.choices) for d in self.lists.values())))
        for row, (name, d) in zip(found, self.lists.items(), strict=True):
            count = len(d.choices)
            likely = max(1 / count, 1 - 1 / len(self.lists))
            row[:count] = (1 - likely) / (count - 1)
            row[d.choices.index(start[name])] = likely
        return found


def _generations(study: optuna.Study) -> Mapping[int, Sequence[FrozenTrial]]:
    """The scored trials of each generation."""
    found = defaultdict[int, list[FrozenTrial]](list)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if (generation := trial.system_attrs.get(CATCMA_GENERATION)) is not None:
            found[generation].append(trial)
    return found


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None  # it is complete
    return trial.value
