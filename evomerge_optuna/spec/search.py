"""How a study searches: the sampler, and when a candidate is stopped early."""

import math
from typing import Annotated

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from evomerge_optuna.spec.part import FunctionName, Integer, Number, Strict
from evomerge_optuna.spec.samplers import AUTO, SAMPLERS, Sampler, SamplerName


class SamplerSpec(Strict):
    """How candidates are drawn. A name alone will do: `sampler: gp`.

    CMA-ES (`cmaes`), as in the paper, begins in the middle of the ranges with a sigma of one sixth
    of the range. `catcma` is CMA-ES that searches lists of choices, too. `gp` fits a Gaussian
    process to the scores; it needs the fewest trials, and ever longer for each. `tpe` is Optuna's
    default. `nsga2` and `nsga3` are genetic algorithms; their first generation is drawn as that of
    CMA-ES is. `random` and `qmc` (a Sobol sequence) do not learn. `brute_force` tries every
    combination, where every parameter has a list of choices. All but `cmaes` and `catcma` take
    several objectives, and constraints.
    """

    name: SamplerName = "cmaes"
    """The name of the sampler. `auto` chooses one by the number of trials and of parameters when
    the study is created, and says which."""
    class_: FunctionName | None = Field(default=None, alias="class")
    """In the place of `name`, a class of Optuna's samplers as `module:class`, or of your own in the
    current folder. From a database it is run only with `--allow-code`."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments of that class. It gets a `seed` of each trial's own, where it takes one."""
    seed: Annotated[Integer, Field(ge=0, lt=2**31)] = 0
    """The seed of the sampler, and of the masks of DARE."""
    population: Annotated[Integer, Field(ge=2)] | None = None
    """The number of trials in a generation. The default is 4 + floor(3 ln n) for `cmaes` and
    `catcma`, and 50 for `nsga2` and `nsga3`. The others have no generations."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_name_or_a_class(self) -> "SamplerSpec":
        if self.class_ is None and self.arguments:
            raise ValueError("arguments: are those of a class; write class: MODULE:CLASS")
        if self.class_ is not None and "name" in self.model_fields_set:
            raise ValueError("write name or class, not both")
        if "seed" in self.arguments:
            raise ValueError("arguments.seed: every trial has its own; write sampler.seed")
        return self

    @model_serializer(mode="wrap")
    def _name_or_class(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        other = {"class", "class_", "arguments"} if self.class_ is None else {"name"}
        return {key: value for key, value in dump(self).items() if key not in other}

    @model_validator(mode="after")
    def _population_of_generations(self) -> "SamplerSpec":
        if self.population is not None and self.name == AUTO:
            raise ValueError("population: auto may choose a sampler without generations; remove it")
        if self.population is not None and not self.row.generations:
            raise ValueError(f"population: {self.row.title} has no generations; remove it")
        return self

    @property
    def row(self) -> Sampler:
        """The sampler's row of the table, which `auto` has none of."""
        if self.class_ is not None:
            return Sampler(self.class_, self.class_, self.class_)
        return SAMPLERS[self.name]


class StopSpec(Strict):
    """When `study run` stops before all candidates are scored."""

    no_better_in: Annotated[Integer, Field(ge=1)]
    """Stop once this many candidates in a row were no better than the best before them; of several
    objectives, once none of them came onto the Pareto front. Those that the study began with do not
    count."""


class RacingSpec(Strict):
    """Score a candidate block by block, and stop it when it is surely worse than the best one.

    Optuna's `WilcoxonPruner` decides this from the blocks' scores.
    """

    blocks: Annotated[Integer, Field(ge=2)] = 10
    """The number of blocks that the problems of the search split are divided into."""
    p_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """A candidate is stopped when the p value of the signed-rank test is below this."""

    @property
    def undecided(self) -> int:
        """The number of blocks that say too little to stop a candidate, even if it loses all."""
        # The signed-rank test of n blocks gives no smaller p than 0.5**n, that of n losses.
        return math.floor(-math.log2(self.p_threshold))

    @model_validator(mode="after")
    def _can_stop(self) -> "RacingSpec":
        if self.undecided >= self.blocks - 1:
            raise ValueError(
                f"blocks: {self.blocks} are too few to be sure of anything before the last one at "
                f"p_threshold {self.p_threshold:g}; write more"
            )
        return self
