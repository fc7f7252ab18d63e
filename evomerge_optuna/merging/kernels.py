"""Merge kernels: one tensor of the merged model, with what does not change between trials kept.

Each gives, bit for bit, what mergekit's kernel of the same method gives. mergekit's own is the
general path; the others work in chunks that stay in the CPU's cache.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from mergekit import merge_methods
from mergekit.common import ModelReference
from mergekit.merge_methods.generalized_task_arithmetic import (
    ConsensusMethod,
    GeneralizedTaskArithmeticMerge,
)
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.sparsify import SparsificationMethod

from evomerge_optuna.merging.memory import Budget, Scratch, size_of
from evomerge_optuna.merging.uniforms import Uniforms

Inputs = dict[ModelReference, torch.Tensor]

# torch.sum adds up to so many rows one after the other, as we do; of more it pairs some first.
_MOST_ROWS = 4
_EPSILON = 1e-7  # mergekit's, below which an L1 norm is not rescaled
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MASKS = (None, SparsificationMethod.magnitude, SparsificationMethod.random)


@dataclass(frozen=True)
class Shared:
    """What all kernels of a merge share.

    The budget is for what is kept beyond the inputs; the uniform numbers make the masks on a CPU.
    """

    budget: Budget
    uniforms: Uniforms
    scratch: Scratch


class Kernel(Protocol):
    """Computes one tensor of the merged model."""

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor | None:
        """The tensor for a task's parameters, in `out` if that is given and fits.

        None where mergekit leaves an optional tensor out.
        """
        ...


def choose_kernel(task: ExecuteMergeMethodTask, inputs: Inputs, shared: Shared) -> Kernel:
    """The fastest kernel that gives mergekit's result for this task and these inputs."""
    method = merge_methods.get(task.method_name)
    tensors = [inputs[model] for model in task.model_order if model in inputs]
    first = tensors[0] if tensors else None
    plain = (
        first is not None
        and len(tensors) == len(task.model_order)
        and first.dtype in _DTYPES
        and all(t.dtype == first.dtype and t.shape == first.shape for t in tensors)
    )
    if plain and task.method_name == "linear" and len(tensors) <= _MOST_ROWS:
        return LinearKernel(tensors)
    if (
        plain
        and isinstance(method, GeneralizedTaskArithmeticMerge)
        and method.consensus_method in (None, ConsensusMethod.sum)
        and method.sparsification_method in _MASKS
        and task.base_model in inputs
        and 1 < len(tensors) <= _MOST_ROWS + 1
        # A GPU draws masks fast, but not torch.rand's numbers.
        and (tensors[0].is_cpu or method.sparsification_method != SparsificationMethod.random)
    ):
        base = inputs[task.base_model]
        sources = [inputs[model] for model in task.model_order if model != task.base_model]
        return TaskVectorKernel(method, base, sources, shared)
    return GeneralKernel(inputs)


@dataclass(frozen=True)
class GeneralKernel:
    """Any method, by mergekit's own kernel."""

    inputs: Inputs

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor | None:
        result: torch.Tensor | None = task.execute(tensors=self.inputs)
        return result


@dataclass(frozen=True)
class LinearKernel:
    """Weighted average of the models (mergekit's `linear`): accumulates in float32."""

    tensors: Sequence[torch.Tensor]

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor:
        first = self.tensors[0]
        given = [task.input_parameters[model]["weight"] for model in task.model_order]
        weights = torch.tensor([given], dtype=torch.float32, device=first.device)
        divisor = weights.sum(dim=1)
        result = _empty_like(first, out)
        flat, *_ = rows = [tensor.reshape(-1) for tensor in self.tensors]
        for part in _chunks(flat):
            total = torch.zeros_like(flat[part], dtype=torch.float32)
            for row, weight in zip(rows, weights.unbind(1), strict=True):
                total.addcmul_(row[part], weight)
            if task.parameters["normalize"]:
                total.div_(divisor)
            result.view(-1)[part] = total
        return result


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

    Kept: task vectors, ranks of their magnitudes, L1 norms; uniform numbers by `Uniforms`.
    """

    def __init__(
        self,
        method: GeneralizedTaskArithmeticMerge,
        base: torch.Tensor,
        sources: Sequence[torch.Tensor],
        shared: Shared,
    ) -> None:
        self._method = method
        self._base = base
        self._deltas = [(source - base).reshape(-1) for source in sources]
        self._shared = shared
        self._ranks: dict[int, torch.Tensor] = {}
        self._keeps_ranks: bool | None = None  # asked when all models have been read
        self._norms: dict[tuple[int, int], torch.Tensor] = {}

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
        result = _empty_like(base, out)
        flat, merged = base.reshape(-1), result.view(-1)
        consensus = self._method.consensus_method is not None
        for part in _chunks(flat):
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
        if method == SparsificationMethod.magnitude:
            kept = max(1, int(density * delta.numel())) if density > 0 else 0
            return _Mask(self._ranks_of(index), kept, delta.dtype)
        # mergekit draws float16's masks in float32, for torch.bernoulli knows no float16.
        dtype = torch.bfloat16 if delta.dtype == torch.bfloat16 else torch.float32
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
        places = torch.arange(len(order), dtype=_rank_dtype(order), device=order.device)
        ranks = torch.empty_like(places)
        ranks[order] = places
        if self._keeps_ranks is None:
            self._keeps_ranks = self._shared.budget.fits(len(self._deltas) * size_of(ranks))
        if self._keeps_ranks:
            self._ranks[index] = ranks
        return ranks

    def _rescaled(self, index: int, mask: _Mask) -> _Rescaled:
        """The mask applied, with the L1 norm before over that after (DARE's rescaling)."""
        delta, shape = self._deltas[index], self._base.shape
        kept = self._shared.scratch.take(index, delta.numel(), mask.dtype)
        for part in _chunks(delta):
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


def _chunks(flat: torch.Tensor) -> Iterator[slice]:
    """Slices whose buffers stay in cache (1 MB a core each); on a GPU far larger ones."""
    size = 2**18 * torch.get_num_threads() if flat.is_cpu else 2**24
    for start in range(0, max(1, len(flat)), size):
        yield slice(start, start + size)


def _empty_like(tensor: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    if (
        out is not None
        and (out.shape, out.dtype, out.device) == (tensor.shape, tensor.dtype, tensor.device)
        and out.is_contiguous()
    ):
        return out
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _rank_dtype(tensor: torch.Tensor) -> torch.dtype:
    return torch.int32 if tensor.numel() < 2**31 else torch.int64
