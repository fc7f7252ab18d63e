"""The samplers that a study may use: a new sampler is a new row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Sampler:
    """What a study knows of a sampler before Optuna, which takes long to import, is there.

    Args:
        name: the key of the spec.
        title: its name in messages.
        kind: `module:class`; an object of it is made for every trial, with a seed of that trial's
            own and the options, or with more where it is marked as `search.samplers.Positioned`.
        options: further arguments of the class.
        several: takes several objectives, and constraints.
        begins_at_start: learns nothing from trials that it did not draw, but begins at the best of
            those that its study begins with.
        generations: draws trials in generations, of which a spec may say the `population`.
        numbers: searches ranges of numbers; else every parameter needs a list of choices.
        categories: searches lists of choices.
        binary: searches best what is in or out if it is offered as a choice, not as a number with a
            threshold.
    """

    name: str
    title: str
    kind: str
    options: Mapping[str, object] = field(default_factory=dict)
    several: bool = True
    begins_at_start: bool = False
    generations: bool = False
    numbers: bool = True
    categories: bool = True
    binary: bool = True


_HERE = "evomerge_optuna.search"
_ROWS = (
    Sampler(
        "cmaes",
        "CMA-ES",
        f"{_HERE}.samplers:PositionedCmaEsSampler",
        several=False,
        begins_at_start=True,
        generations=True,
        categories=False,
        binary=False,
    ),
    Sampler(
        "nsga2",
        "NSGA-II",
        f"{_HERE}.samplers:PositionedNSGAIISampler",
        generations=True,
        binary=False,
    ),
    Sampler(
        "nsga3",
        "NSGA-III",
        f"{_HERE}.samplers:PositionedNSGAIIISampler",
        generations=True,
        binary=False,
    ),
    Sampler(
        "gp",
        "GP",
        "optuna.samplers:GPSampler",
        {"deterministic_objective": False, "warn_independent_sampling": False},
    ),
    Sampler(
        "tpe",
        "TPE",
        "optuna.samplers:TPESampler",
        {"multivariate": True},
    ),
    Sampler(
        "catcma",
        "CatCMA",
        f"{_HERE}.catcma:CatCmaSampler",
        several=False,
        begins_at_start=True,
        generations=True,
    ),
    Sampler("random", "random search", "optuna.samplers:RandomSampler"),
    Sampler("qmc", "QMC", f"{_HERE}.quasi_random:PositionedQMCSampler"),
    Sampler(
        "brute_force", "brute force", f"{_HERE}.brute_force:PositionedBruteForce", numbers=False
    ),
)

SAMPLERS = {row.name: row for row in _ROWS}
AUTO = "auto"  # one of them, chosen when the study is created

if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[(*SAMPLERS, AUTO)]
