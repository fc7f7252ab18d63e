"""The table of methods that merge adapters into one; a new method is a new row.

The names are those of peft's `add_weighted_adapter`, whose arithmetic they have; `lorahub` is that
of Huang et al. 2023 (arXiv 2307.13269).
"""

from dataclasses import dataclass, replace
from typing import Literal

from evomerge_optuna.methods.method import Method, Option, Parameter


@dataclass(frozen=True)
class AdapterMethod(Method):
    """A method that merges LoRA adapters of one base model.

    Args:
        rank: that of the result: the `same` as every adapter's, the `sum` of the adapters', or what
            a singular value decomposition is `cut` to, the largest of the adapters' unless a spec
            gives `max_rank`.
        prunes: how elements are dropped where the density is below 1: at `random`, as in DARE, or
            the smallest, by `magnitude`.
        elects: does a majority of signs decide each element, as in TIES?
        whole: are the products of A and B merged, and not A and B apart?
        each_half: are A and B each multiplied by the whole weight, and not by its root?
    """

    rank: Literal["same", "sum", "cut"] = "same"
    prunes: Literal["random", "magnitude"] | None = None
    elects: bool = False
    whole: bool = False
    each_half: bool = False


WEIGHT = Parameter(
    "weight",
    "How much of each adapter goes into the merge, in each layer group.",
    low=0.0,
    high=1.0,
    alone=(1.0, 0.0),
)
# Each element is divided by how many adapters agree on it.
VOTING = replace(WEIGHT, uniform=1.0)
DENSITY = Parameter(
    "density",
    "The share of each adapter's elements that is kept, in [0.01, 1].",
    low=0.1,
    high=1.0,
    bounds=(0.01, 1.0),
    uniform=1.0,
)
FACTOR = Parameter(
    "weight",
    "Of lorahub: what A and B of each adapter are each multiplied by before they are added.",
    low=-1.5,
    high=1.5,
    alone=(1.0, 0.0),
)

FREQUENCY = Option(
    "count_signs",
    "The sign that most adapters have wins, and not the one with the larger sum (peft's "
    "majority_sign_method: frequency).",
    default=False,
)

_ROWS = (
    AdapterMethod("linear", (WEIGHT,)),
    AdapterMethod("cat", (WEIGHT,), rank="sum"),
    AdapterMethod("svd", (WEIGHT,), rank="cut"),
    AdapterMethod("ties", (VOTING, DENSITY), (FREQUENCY,), prunes="magnitude", elects=True),
    AdapterMethod("dare_linear", (WEIGHT, DENSITY), prunes="random"),
    AdapterMethod("dare_ties", (VOTING, DENSITY), (FREQUENCY,), prunes="random", elects=True),
    AdapterMethod("magnitude_prune", (WEIGHT, DENSITY), prunes="magnitude"),
    AdapterMethod("lorahub", (FACTOR,), each_half=True),
)
# These prune or vote on the products of A and B, of which a decomposition makes an adapter again.
_OF_PRODUCTS = tuple(
    replace(row, name=f"{row.name}_svd", rank="cut", whole=True) for row in _ROWS if row.prunes
)

ADAPTER_METHODS = {row.name: row for row in (*_ROWS, *_OF_PRODUCTS)}
