"""Samplers that keep nothing between trials, so that a resumed study continues as if never stopped.

Optuna's CMA-ES and NSGA keep their state in the trials' attributes; all that a sampler object
holds is its random stream. A fresh sampler for each trial, seeded from the spec's seed and the
trial's position in the study, therefore gives the same trial whether or not the process was stopped
before it.

A search of one parameter is a search, too; Optuna's samplers would draw it at random. CMA-ES gets a
second coordinate that nothing depends on; the genetic algorithms, which would mutate it in every
child or else copy a parent, draw it between and around two parents.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseGASampler,
    BaseSampler,
    NSGAIIISampler,
    NSGAIISampler,
)
from optuna.samplers.nsgaii import BLXAlphaCrossover
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.search.optimizer_state import restore
from evomerge_optuna.search.unit import from_unit
from evomerge_optuna.search.user_sampler import make_user_sampler, takes_seed
from evomerge_optuna.spaces.space import Values
from evomerge_optuna.spec import SamplerSpec
from evomerge_optuna.store.optuna_internals import OpenCmaEsSampler, set_sampler_attribute
from evomerge_optuna.study.schema import IDLE_COORDINATE

if TYPE_CHECKING:
    from cmaes import CMA

_POPULATION = 50  # of NSGA-II and NSGA-III unless the spec gives one


@dataclass(frozen=True)
class Settings:
    """What the sampler of one trial is made with.

    Attributes:
        seed: the spec's.
        position: of the trial in its study, 0 for the first.
        population: trials of a generation; None: the sampler's own number.
        start: where CMA-ES begins; None: in the middle of the ranges.
        alone: is there one parameter only?
    """

    seed: int
    position: int
    population: int | None
    start: Values | None
    alone: bool

    @property
    def stream(self) -> int:
        """A seed of its own for each position, below 2**31 as cmaes wants it."""
        sequence = np.random.SeedSequence([self.seed, self.position])
        return int(sequence.generate_state(1)[0]) % (2**31 - 1)


class Positioned:
    """Marks the samplers that are made with `Settings`, not with a seed alone."""


class PositionedCmaEsSampler(Positioned, OpenCmaEsSampler):
    """CMA-ES whose random numbers depend on a trial's position, not on its number.

    Optuna adds the trial's number to its seed, and an interrupted trial takes a number though its
    retry repeats it; the position counts both as one.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            x0=None if settings.start is None else {**settings.start, IDLE_COORDINATE: 0.5},
            seed=settings.stream,
            popsize=settings.population,
            warn_independent_sampling=False,
        )
        self._position = settings.position

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        positioned = copy.copy(trial)
        positioned.number = self._position
        if len(search_space) != 1:
            return super().sample_relative(study, positioned, search_space)
        plane = {**search_space, IDLE_COORDINATE: FloatDistribution(0, 1)}
        drawn = super().sample_relative(study, positioned, plane)
        if IDLE_COORDINATE in drawn:
            idle = drawn.pop(IDLE_COORDINATE)
            set_sampler_attribute(study, trial, IDLE_COORDINATE, idle)
        return drawn

    def as_drawn(self, trial: FrozenTrial) -> FrozenTrial:
        """With the second coordinate of a lone parameter."""
        if IDLE_COORDINATE not in trial.system_attrs:
            return trial
        found = copy.copy(trial)
        found.params = {**trial.params, IDLE_COORDINATE: trial.system_attrs[IDLE_COORDINATE]}
        return found

    def restore(self, state: str) -> "CMA":
        """Not as Optuna does it: who may write to the database could write any pickle."""
        return restore(state)


if TYPE_CHECKING:  # both have the same constructor, which BaseGASampler has not
    _GASampler = NSGAIISampler
else:
    _GASampler = BaseGASampler


class _PositionedGA(Positioned, _GASampler):
    """What is common to NSGA-II and NSGA-III here.

    The first generation is drawn around the middle of the ranges, as that of CMA-ES is; Optuna
    would draw it from the whole ranges, and a stack of which every second layer is missing says
    nothing. Trials whose parameters are given (baselines) enter the population, which Optuna
    leaves them out of.
    """

    def __init__(self, settings: Settings) -> None:
        lone: dict[str, Any] = {
            "crossover": BLXAlphaCrossover(),
            "crossover_prob": 1.0,
            "mutation_prob": 0.1,
        }
        super().__init__(
            seed=settings.stream,
            population_size=settings.population or _POPULATION,
            **(lone if settings.alone else {}),
        )
        self._first_draws = np.random.default_rng([settings.seed, settings.position])
        self._has_parents = False

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        child = super().sample_relative(study, trial, search_space)
        self._has_parents = bool(child)
        return child

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        if self._has_parents:  # a mutation
            return super().sample_independent(study, trial, param_name, param_distribution)
        return _around_the_middle(param_distribution, self._first_draws)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self.get_trial_generation(study, trial)  # stores it where there is none
        super().after_trial(study, trial, state, values)


def _around_the_middle(distribution: BaseDistribution, draws: np.random.Generator) -> Any:
    """A value near the middle of a range; of a list of choices any."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[draws.integers(len(distribution.choices))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        drawn = from_unit(FloatDistribution(low, high, log=True), draws.normal(1 / 2, 1 / 6))
    else:
        drawn = float(np.clip(draws.normal((low + high) / 2, (high - low) / 6), low, high))
    return drawn if isinstance(distribution, FloatDistribution) else round(drawn)


class PositionedNSGAIISampler(_PositionedGA, NSGAIISampler):
    """NSGA-II (Deb et al. 2002) whose random numbers depend on a trial's position."""


class PositionedNSGAIIISampler(_PositionedGA, NSGAIIISampler):
    """NSGA-III (Deb and Jain 2014) whose random numbers depend on a trial's position."""


def make_sampler(
    spec: SamplerSpec,
    position: int,
    start: Values | None = None,
    *,
    alone: bool = False,
) -> BaseSampler:
    """The sampler of the trial at this position (0 for the first) of a study.

    Args:
        start: where CMA-ES begins; None: in the middle of the ranges.
        alone: is there one parameter only?
    """
    settings = Settings(spec.seed, position, spec.population, start, alone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of x0, which Optuna 6 will not have
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if spec.class_ is not None:
            return make_user_sampler(spec, settings.stream)
        module, _, name = spec.row.kind.partition(":")
        kind = getattr(import_module(module), name)
        made: BaseSampler = (
            kind(settings)
            if issubclass(kind, Positioned)
            else kind(seed=settings.stream, **spec.row.options)
        )
    return made


def check_sampler(spec: SamplerSpec) -> str | None:
    """Makes the sampler of a class once, before a study is created.

    Returns:
        What the user should know of it.

    Raises:
        SpecError: see `make_user_sampler`.
    """
    if spec.class_ is None:
        return None
    make_sampler(spec, 0)
    if takes_seed(spec):
        return None
    return (
        f"Warning: {spec.class_} takes no seed, so a study that is stopped does not go on with the "
        "candidates that it would have had"
    )
