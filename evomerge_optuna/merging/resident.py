"""Resident merger: what merges of one structure share stays in memory from merge to merge."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from mergekit.graph import Executor, Task
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask

from evomerge_optuna.devices import torch_device
from evomerge_optuna.merging.kernel import Inputs, Kernel, Shared
from evomerge_optuna.merging.kernels import GeneralKernel, choose_kernel
from evomerge_optuna.merging.memory import Budget, Scratch, size_of
from evomerge_optuna.merging.merge_stream import MergeStream
from evomerge_optuna.merging.mergekit_internals import close_model_files
from evomerge_optuna.merging.plan import (
    MergePlan,
    TensorPlan,
    mergekit_errors,
    plan_merge,
    structure,
    translated_errors,
)
from evomerge_optuna.merging.uniforms import Uniforms
from evomerge_optuna.models.headers import headers_in
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.models.stream import NO_MEMORY, Memory
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.merge import MergeRecipe


class ResidentMerger:
    """Gives merges as streams, bit for bit as `run_merge` writes them; see `MergeMerger`.

    mergekit plans every merge. What the plans of all recipes of one structure have in common (the
    models' tensors, aligned vocabularies, task vectors, ranks) is read and computed at the first
    merge and kept.

    Args:
        device: as in a spec, "auto" or "cuda:1".
        memory_limit: bytes to keep, None for 70% of what is free; what does not fit is read or
            computed again at every merge.
        say: is given a line about what is kept, after the first merge.
    """

    def __init__(
        self,
        device: str,
        memory_limit: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.device = torch_device(device)
        self._named = device
        self._memory_limit = memory_limit
        self._say = say
        self._resident: _Resident | None = None

    def load(self, recipe: MergeRecipe) -> None:
        with mergekit_errors():
            self._resident_for(structure(recipe), plan_merge(recipe))

    def stream(self, recipe: MergeRecipe, into: Memory = NO_MEMORY) -> MergeStream:
        with mergekit_errors():
            plan = plan_merge(recipe)
        kind = structure(recipe)
        return MergeStream(
            plan, kind, lambda: self._tensors(kind, plan, recipe.seed, into), self.device, into
        )

    def _tensors(
        self, kind: str, plan: MergePlan, seed: int, into: Memory
    ) -> Iterator[NamedTensor]:
        if (resident := self._resident) is None or resident.structure != kind:
            with mergekit_errors():
                resident = self._resident_for(kind, plan)
        transformers.set_seed(seed)
        try:
            with translated_errors():
                yield from resident.tensors(plan, into)
        finally:
            close_model_files()
        if not resident.is_announced:
            resident.is_announced = True
            self._say(resident.summary())

    def _resident_for(self, kind: str, plan: MergePlan) -> "_Resident":
        if self._resident is None or self._resident.structure != kind:
            self._resident = None  # freed before the next one is filled
            budget = Budget.of(self._named, self._memory_limit)
            self._resident = _Resident(kind, plan, self.device, budget)
        return self._resident


class _Resident:
    """What the merges of one structure of recipes share."""

    def __init__(self, structure: str, plan: MergePlan, device: str, budget: Budget) -> None:
        self.structure = structure
        self.is_announced = False
        self._order = plan.order()
        self._device = device
        self._budget = budget
        self._shared = Shared(budget, Uniforms(budget), Scratch(budget, device))
        self._kernels = self._read(plan)

    @torch.no_grad()  # the receiver's memory may be the parameters of a model
    def tensors(self, plan: MergePlan, into: Memory) -> Iterator[NamedTensor]:
        """Merges one tensor after the other.

        torch has just been seeded; the masks of all tensors come from one stream of numbers.
        """
        self._shared.uniforms.restart()
        for name in self._order:
            merged = self._merge(plan.tensors[name], into.get(name))
            if merged is not None:
                yield name, merged

    def _merge(self, plan: TensorPlan, out: torch.Tensor | None) -> torch.Tensor | None:
        """The tensor, in `out` if it fits there; None where mergekit leaves it out."""
        kernel = self._kernels[plan.name]
        with quiet() if isinstance(kernel, GeneralKernel | ReadingKernel) else nullcontext():
            merged = kernel.merge(plan.task, out)
        if merged is None:
            if not plan.optional:
                raise RuntimeError(f"no value for required tensor {plan.name}")
            return None
        if plan.dtype:
            merged = merged.to(plan.dtype)
        if out is not None and _is_alike(out, merged):
            return out if out is merged else out.copy_(merged)
        # mergekit's own kernel may give one of its inputs.
        return (merged.clone() if isinstance(kernel, GeneralKernel) else merged).contiguous()

    def _read(self, plan: MergePlan) -> dict[str, Kernel]:
        """Reads the inputs of every tensor once and chooses its kernel."""
        wanted: dict[Task, list[TensorPlan]] = defaultdict(list)
        for tensor_plan in plan.tensors.values():
            wanted[tensor_plan.task.gather_tensors].append(tensor_plan)
        kernels: dict[str, Kernel] = {}
        # First of all, since the merged model is needed whether anything else can be kept or not.
        self._budget.spend(_merged_size(plan))
        for task, inputs in Executor(list(wanted)).run(quiet=True):
            kept = self._budget.fits(size_of(*inputs.values()))
            placed = _placed(inputs, self._device)
            for tensor_plan in wanted[task]:
                kernels[tensor_plan.name] = (
                    choose_kernel(tensor_plan.task, placed, self._shared)
                    if kept
                    else ReadingKernel(self._device, self._shared)
                )
        return kernels

    def summary(self) -> str:
        """What is kept, and what is not for want of memory."""
        refused = self._budget.refused
        kept = f"models in memory: {self._budget.used / 1e9:.2f} GB are kept between trials"
        if not refused:
            return kept
        return (
            f"{kept}; {refused / 1e9:.2f} GB more do not fit into "
            f"{self._budget.limit / 1e9:.2f} GB and are read or computed again at every merge; "
            "raise evaluation.memory_limit if there is memory"
        )


@dataclass(frozen=True)
class ReadingKernel:
    """Reads its inputs at every merge: the way where they do not fit into the memory budget."""

    device: str
    shared: Shared

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor | None:
        ((_, inputs),) = Executor([task.gather_tensors]).run(quiet=True)
        placed = _placed(inputs, self.device)
        nothing_kept = replace(self.shared, budget=Budget(limit=0))
        return choose_kernel(task, placed, nothing_kept).merge(task, out)


def _merged_size(plan: MergePlan) -> int:
    """Bytes of the merged model, by the headers of its models' files."""
    sizes: dict[str, int] = defaultdict(int)
    for model in plan.configuration.referenced_models():
        folder = Path(model.model.path)
        for name, header in headers_in(folder, str(folder)).items():
            if (tensor := plan.tensors.get(name)) is not None:
                itemsize = tensor.dtype.itemsize if tensor.dtype else header.itemsize
                sizes[name] = max(sizes[name], header.count * itemsize)
    return sum(sizes.values())


def _is_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether one can take the other's values as they are."""
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)


def _placed(inputs: Inputs, device: str) -> Inputs:
    return {model: tensor.to(device) for model, tensor in inputs.items()}
