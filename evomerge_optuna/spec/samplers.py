"""The samplers that a study may use: a new sampler is a new row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from evomerge_optuna.spec.part import Integer, Strict


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


class SamplerSpec(Strict):
    """Use CMA-ES for one objective, and NSGA-II or NSGA-III for several. They are Optuna's.

    CMA-ES begins in the middle of the ranges, with a sigma of one sixth of the range. So does the
    first generation of the other two. Each of them can search a single parameter.
    """

    name: SamplerName = "cmaes"
    """The name of the sampler."""
    seed: Annotated[Integer, Field(ge=0, lt=2**31)] = 0
    """The seed of the sampler, and of the masks of DARE."""
    population: Annotated[Integer, Field(ge=2)] | None = None
    """The number of trials in a generation. The default is 4 + floor(3 ln n) for CMA-ES and 50 for
    the others."""

    @property
    def row(self) -> Sampler:
        """The sampler's row of the table."""
        return SAMPLERS[self.name]
