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
        learns_from_others: learns from trials that it did not draw: the source models', and the
            best recipes of other studies.
    """

    name: str
    title: str
    kind: str
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    several: bool = True
    learns_from_others: bool = True


_ROWS = (
    Sampler(
        "cmaes",
        "CMA-ES",
        "evomerge_optuna.search.samplers:PositionedCmaEsSampler",
        several=False,
        learns_from_others=False,
    ),
    Sampler("nsga2", "NSGA-II", "evomerge_optuna.search.samplers:PositionedNSGAIISampler"),
    Sampler("nsga3", "NSGA-III", "evomerge_optuna.search.samplers:PositionedNSGAIIISampler"),
)

SAMPLERS = {row.name: row for row in _ROWS}

if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[tuple(SAMPLERS)]
