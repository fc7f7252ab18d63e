"""What becomes of A and B of one module of several adapters: peft's arithmetic, by its functions.

peft's `add_weighted_adapter` takes one density for all adapters and one weight for all modules of
an adapter; here both may differ. Where they do not, the tensors are those that it makes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft.utils.merge_utils import (
    calculate_majority_sign_mask,
    disjoint_merge,
    prune,
    task_arithmetic,
)

from evomerge_optuna.methods import AdapterMethod


@dataclass(frozen=True)
class Part:
    """What one adapter adds to a module, and with what values.

    Attributes:
        a: (rank, inputs).
        b: (outputs, rank).
        scaling: of the adapter itself.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    weight: float
    density: float = 1.0


@dataclass(frozen=True)
class Result:
    """A and B of a module of the merge, whose product is added as it is.

    Attributes:
        lost: the squared norm of what was cut off the product; None: nothing was cut.
    """

    a: torch.Tensor
    b: torch.Tensor
    lost: float | None = None

    @property
    def norm(self) -> float:
        """The squared norm of the product, which is never made."""
        return float(((self.b.T @ self.b) * (self.a @ self.a.T)).sum(dtype=torch.float64))


def merge_module(
    method: AdapterMethod,
    parts: Sequence[Part],
    rank: int,
    *,
    count_signs: bool = False,
    transposed: bool = False,
) -> Result:
    """A and B of a module of the merge.

    Random masks come from torch's generator, in the order of the adapters, all of A before B.

    Args:
        parts: of the adapters that change the module, in order.
        rank: the most that the result may have.
        count_signs: peft's majority_sign_method, frequency or else total.
        transposed: the module's weight has a row for each input, in which order peft prunes it.
    """
    sign = "frequency" if count_signs else "total"
    if method.whole:
        deltas = [_delta(part, transposed) * part.scaling for part in parts]
        weights = [part.weight for part in parts]
        merged = _merged(method, deltas, weights, [part.density for part in parts], sign)
        return _decomposed(merged.T if transposed else merged, rank)
    if method.rank in ("sum", "cut"):
        a = torch.cat([part.a * part.weight * part.scaling for part in parts], dim=0)
        b = torch.cat([part.b for part in parts], dim=1)
    else:
        densities = [part.density for part in parts]
        of_a, of_b = zip(*(_factors(method, part) for part in parts), strict=True)
        a = _merged(method, [part.a for part in parts], of_a, densities, sign)
        b = _merged(method, [part.b for part in parts], of_b, densities, sign)
    return Result(a, b) if a.shape[0] <= rank else _cut(a, b, rank)


def _factors(method: AdapterMethod, part: Part) -> tuple[float, float]:
    """What A and B are multiplied by: peft gives each the root, and the sign to A.

    LoraHub multiplies each by the whole weight, so that a weight counts squared.
    """
    scaled = part.scaling if method.each_half else part.weight * part.scaling
    root = math.sqrt(abs(scaled))
    factor = part.weight if method.each_half else 1.0
    return factor * math.copysign(root, scaled), factor * root


def _delta(part: Part, transposed: bool) -> torch.Tensor:
    product = part.b @ part.a
    return product.T if transposed else product


def _merged(
    method: AdapterMethod,
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    densities: Sequence[float],
    sign: str,
) -> torch.Tensor:
    """The weighted sum of pruned tensors, by a vote on their signs where the method elects."""
    if method.prunes is not None:
        tensors = [
            tensor if density >= 1 else _pruned(tensor, density, method.prunes)
            for tensor, density in zip(tensors, densities, strict=True)
        ]
    factors = torch.tensor(weights, dtype=tensors[0].dtype, device=tensors[0].device)
    if not method.elects:
        summed: torch.Tensor = task_arithmetic(list(tensors), factors)
        return summed
    stacked = torch.stack(list(tensors), dim=0)
    majority = calculate_majority_sign_mask(stacked, method=sign)
    weighted = stacked * factors.view(-1, *[1] * (stacked.dim() - 1))
    elected: torch.Tensor = disjoint_merge(weighted, majority)
    return elected


def _pruned(tensor: torch.Tensor, density: float, how: str) -> torch.Tensor:
    pruned: torch.Tensor = prune(tensor, density, method=how, rescale=how == "random")
    return pruned


def _cut(a: torch.Tensor, b: torch.Tensor, rank: int) -> Result:
    """The nearest product of this rank, by a decomposition that never makes the whole matrix."""
    left, b_rest = torch.linalg.qr(b)
    right, a_rest = torch.linalg.qr(a.T)
    core = _decomposed(b_rest @ a_rest.T, rank)
    return Result(core.a @ right.T, left @ core.b, core.lost)


def _decomposed(product: torch.Tensor, rank: int) -> Result:
    u, s, vh = torch.linalg.svd(product, full_matrices=False)
    squares = s.double().square()
    return Result(
        a=vh[:rank],
        b=u[:, :rank] @ torch.diag(s[:rank]),
        lost=float(squares[rank:].sum()),
    )
