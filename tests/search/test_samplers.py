"""A sampler made anew for every trial is a sampler that never forgets.

Covers `spec.samplers`, `search.catcma`, `search.quasi_random`, `search.brute_force` and
`search.unit`, too.
"""

import statistics

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from evomerge_optuna.search.samplers import make_sampler
from evomerge_optuna.spec import SamplerSpec

NAMES = ("x", "y", "z")


def run(
    spec: SamplerSpec,
    trials: int,
    interrupted: frozenset[int] = frozenset(),
    names: tuple[str, ...] = NAMES,
) -> list[list[float]]:
    """Parameters by position; at the given positions a trial is lost and its position repeated."""
    study = optuna.create_study()
    found: list[list[float]] = []
    while len(found) < trials:
        position = len(found)
        trial = study.ask()
        study.sampler = make_sampler(spec, position, alone=len(names) == 1)
        values = [trial.suggest_float(name, -1, 1) for name in names]
        if position in interrupted:
            interrupted -= {position}
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        study.tell(trial, sum((value - 0.3) ** 2 for value in values))
        found.append(values)
    return found


def test_interrupted_trials_change_nothing() -> None:
    spec = SamplerSpec(seed=3, population=5)
    whole = run(spec, 30)
    assert run(spec, 30) == whole
    assert run(spec, 30, interrupted=frozenset({0, 4, 5, 6, 20, 29})) == whole
    assert run(SamplerSpec(seed=4, population=5), 30) != whole


def test_no_two_trials_are_alike() -> None:
    found = run(SamplerSpec(seed=0), 60)
    assert len({tuple(values) for values in found}) == 60


def test_it_optimizes() -> None:
    study_values = [
        sum((value - 0.3) ** 2 for value in values)
        for values in run(SamplerSpec(seed=0, population=8), 200)
    ]
    assert min(study_values[-20:]) < 0.01 * min(study_values[:8])
    assert study_values[-1] == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("name", ["cmaes", "nsga2", "nsga3"])
def test_one_parameter_is_searched(name: str) -> None:
    """Not drawn at random: the last trials are far nearer the best than the first ones."""
    spec = SamplerSpec(name=name, seed=1, population=8)
    found = run(spec, 80, names=("x",))
    distances = [abs(value - 0.3) for (value,) in found]
    assert min(distances) < 0.02
    assert sum(distances[-24:]) < 0.4 * sum(distances[:24])
    assert len({value for (value,) in found}) > 60


@pytest.mark.parametrize("name", ["nsga2", "nsga3"])
def test_a_first_generation_is_drawn_around_the_middle_of_any_range(name: str) -> None:
    """The middle of a logarithmic range of integers is that of its logarithms."""
    ranges = {
        "whole": IntDistribution(0, 1000),
        "log": IntDistribution(1, 10000, log=True),
        "list": CategoricalDistribution(("ties", True, 0.5)),
    }
    study = optuna.create_study()
    drawn = []
    for position in range(30):
        study.sampler = make_sampler(SamplerSpec(name=name, seed=1), position)
        drawn.append(study.ask(ranges).params)
    assert 400 < statistics.median(trial["whole"] for trial in drawn) < 600
    assert 50 < statistics.median(trial["log"] for trial in drawn) < 200
    assert {trial["list"] for trial in drawn} == {"ties", True, 0.5}


def test_one_parameter_resumes() -> None:
    spec = SamplerSpec(seed=3)
    whole = run(spec, 30, names=("x",))
    assert run(spec, 30, frozenset({0, 5, 6, 20, 29}), names=("x",)) == whole
