"""Merges of task vectors, with all that does not change between trials kept.

Works in chunks that stay in the CPU's cache.
"""

from dataclasses import dataclass

import torch
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
)
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.sparsify import SparsificationMethod

from evomerge_optuna.merging import registry
from evomerge_optuna.merging.kernel import (
    Inputs,
    KernelMemory,
    Layout,
    Shared,
    chunks,
    empty_like,
)

# Up to this number of rows torch.sum adds one after the other, as we do; of more it pairs some.
_MOST_ROWS = 4
_EPSILON = 1e-7  # mergekit's, below which an L1 norm is not rescaled
_MAGNITUDE, _RANDOM = SparsificationMethod.magnitude, SparsificationMethod.random


@dataclass(frozen=True)
class _Mask:
    """Keeps the elements whose value is below the limit."""

    values: torch.Tensor  # ranks (int32 or int64) or uniform numbers (float32)
    limit: float
    dtype: torch.dtype  # in which mergekit multiplies by the mask

    def apply(self, tensor: torch.Tensor, part: slice, out: torch.Tensor) -> None:
        """out = tensor where it is kept, else 0."""
        torch.lt(self.values[part], self.limit, out=out)
        out.mul_(tensor)


@dataclass(frozen=True)
class _Rescaled:
    """What a mask keeps, and the scale that restores the L1 norm; None where that is tiny."""

    magnitudes: torch.Tensor
    scale: torch.Tensor | None


class TaskVectorKernel:
    """Task arithmetic, TIES (arXiv 2306.01708) and DARE (arXiv 2311.03099).

    Kept: task vectors, in the place of the source models' tensors; ranks of their magnitudes, or
    uniform numbers by `Uniforms`; L1 norms, which take nothing.
    """

    def __init__(self, task: ExecuteMergeMethodTask, inputs: Inputs, shared: Shared) -> None:
        self._method = registry.get(task.method_name)
        self._base = inputs[task.base_model]
        self._deltas = [
            (inputs[model] - self._base).reshape(-1)
            for model in task.model_order
            if model != task.base_model
        ]
        self._layout = Layout.of(task, inputs)
        self._shared = shared
        self._ranks: dict[int, torch.Tensor] = {}
        self._keeps_ranks: bool | None = None  # asked when all models have been read
        self._norms: dict[tuple[int, int], torch.Tensor] = {}

    @staticmethod
    def suits(layout: Layout) -> bool:
        """Those that mergekit's `GeneralizedTaskArithmeticMerge` sums, for up to four sources."""
        method = registry.get(layout.method)
        return (
            layout.is_plain
            and isinstance(method, GeneralizedTaskArithmeticMerge)
            and method.consensus_method in (None, ConsensusMethod.sum)
            and method.sparsification_method in (None, _MAGNITUDE, _RANDOM)
            and layout.has_base
            and 1 <= layout.sources <= _MOST_ROWS
            # A GPU draws masks fast, but not torch.rand's numbers.
            and not (layout.on_gpu and method.sparsification_method == _RANDOM)
        )

    @staticmethod
    def memory(layout: Layout, drops: bool) -> KernelMemory:
        """Ranks or uniform numbers; at work task vectors, masks and what is sorted."""
        dtype = layout.dtypes[0]
        sparsification = registry.get(layout.method).sparsification_method if drops else None
        number, work = 0, dtype.itemsize * (len(layout.dtypes) + layout.sources)
        if sparsification == _MAGNITUDE:
            number = _rank_dtype(layout.count).itemsize
            work += layout.sources * (number + dtype.itemsize) + 16 + dtype.itemsize
        elif sparsification == _RANDOM:
            number, mask = 4, _mask_dtype(dtype)  # float32
            work += layout.sources * (number + mask.itemsize)
            work += mask.itemsize * (1 if mask == dtype else 2)  # for an L1 norm
        return KernelMemory(layout.sources * number * layout.count, work * layout.count)

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor:
        sources = [model for model in task.model_order if model != task.base_model]
        parameters = [task.input_parameters[model] for model in sources]
        options = task.parameters
        base = self._base
        # Masks in the order of the sources, for they share one stream of random numbers.
        masks = [
            self._mask(task, index, values["density"]) for index, values in enumerate(parameters)
        ]
        sparse = [
            self._rescaled(index, mask) if mask and options["rescale"] else mask
            for index, mask in enumerate(masks)
        ]
        weights = torch.tensor(
            [[values["weight"]] for values in parameters], dtype=base.dtype, device=base.device
        )
        divisor = weights.sum(dim=0)
        divisor[divisor.abs() < 1e-8] = 1
        result = empty_like(base, out)
        flat, merged = base.reshape(-1), result.view(-1)
        consensus = self._method.consensus_method is not None
        for part in chunks(flat):
            rows = [
                _row(delta[part], weight, how, part)
                for delta, how, weight in zip(self._deltas, sparse, weights, strict=True)
            ]
            if consensus:
                mixed = _elect(rows, weights if options["normalize"] else None)
            else:
                mixed = _sum(rows).add_(0)  # torch.sum begins with 0: its sums are never -0
                if options["normalize"]:
                    mixed.div_(divisor)
            if options["lambda"] != 1:
                mixed.mul_(options["lambda"])
            torch.add(flat[part], mixed, out=merged[part])
        return result

    def _mask(self, task: ExecuteMergeMethodTask, index: int, density: float) -> _Mask | None:
        method, delta = self._method.sparsification_method, self._deltas[index]
        if method is None or density >= 1:
            return None
        if method == _MAGNITUDE:
            kept = max(1, int(density * delta.numel())) if density > 0 else 0
            return _Mask(self._ranks_of(index), kept, delta.dtype)
        dtype = _mask_dtype(delta.dtype)
        numbers = self._shared.uniforms.draw(f"{task.output_weight.name}.{index}", delta.numel())
        return _Mask(numbers, torch.tensor(density, dtype=dtype).item(), dtype)

    def _ranks_of(self, index: int) -> torch.Tensor:
        """Of each element its place in the order of falling magnitude, as mergekit sorts them."""
        if index in self._ranks:
            return self._ranks[index]
        magnitudes = self._deltas[index].abs()
        order = torch.argsort(
            magnitudes.float() if magnitudes.is_cpu else magnitudes, descending=True
        )
        places = torch.arange(len(order), dtype=_rank_dtype(len(order)), device=order.device)
        ranks = torch.empty_like(places)
        ranks[order] = places
        if self._keeps_ranks is None:
            kept = self.memory(self._layout, drops=True).kept
            self._keeps_ranks = self._shared.budget.fits(kept)
        if self._keeps_ranks:
            self._ranks[index] = ranks
        return ranks

    def _rescaled(self, index: int, mask: _Mask) -> _Rescaled:
        """The mask applied, with the L1 norm before over that after (DARE's rescaling)."""
        delta, shape = self._deltas[index], self._base.shape
        kept = self._shared.scratch.take(index, delta.numel(), mask.dtype)
        for part in chunks(delta):
            mask.apply(delta[part].abs(), part, out=kept[part])
        after = kept.view(shape).sum()
        key = index, torch.get_num_threads()  # which decides how a sum rounds
        if key not in self._norms:
            self._norms[key] = delta.view(shape).to(mask.dtype).abs().sum()
        before = self._norms[key]
        tiny = bool(before < _EPSILON or after < _EPSILON)
        return _Rescaled(kept, None if tiny else before / after)


def _row(
    delta: torch.Tensor, weight: torch.Tensor, how: _Mask | _Rescaled | None, part: slice
) -> torch.Tensor:
    """A chunk of a task vector, masked and weighted, as a new tensor."""
    if how is None:
        return delta * weight
    if isinstance(how, _Mask):
        kept = torch.empty_like(delta, dtype=how.dtype)
        how.apply(delta, part, out=kept)
    else:
        kept = torch.copysign(how.magnitudes[part], delta)
        if how.scale is not None:
            kept.mul_(how.scale)
    return kept.to(delta.dtype).mul_(weight)


def _elect(rows: list[torch.Tensor], weights: torch.Tensor | None) -> torch.Tensor:
    """Sum of the rows that have the elected sign (TIES, section 3); divided where weights are.

    Each row is multiplied by the elected sign, so that those to keep are the positive ones.
    """
    sign = torch.copysign(torch.ones_like(rows[0]), _sum(rows))
    agreeing = [row.mul_(sign).clamp_(min=0) for row in rows]
    mixed = (_sum(agreeing) * sign).add_(0)  # torch.sum begins with 0: its sums are never -0
    if weights is not None:
        shares = [
            torch.gt(row, 0, out=row).mul_(weight)
            for row, weight in zip(agreeing, weights, strict=True)
        ]
        divisor = _sum(shares)
        mixed.div_(divisor.add_(torch.eq(divisor, 0, out=sign)))
    return mixed


def _sum(rows: list[torch.Tensor]) -> torch.Tensor:
    """What torch.stack(rows).sum(dim=0) gives for up to four rows, but for the sign of zeros."""
    if len(rows) > 2 and rows[0].dtype != torch.float32:
        return torch.stack(rows).sum(dim=0)  # adds in float32 and rounds once
    total, *others = rows
    for row in others:
        total = total + row
    return total


def _mask_dtype(dtype: torch.dtype) -> torch.dtype:
    """In which mergekit draws DARE's masks: torch.bernoulli knows no float16."""
    return torch.bfloat16 if dtype == torch.bfloat16 else torch.float32


def _rank_dtype(count: int) -> torch.dtype:
    return torch.int32 if count < 2**31 else torch.int64
