"""Resident merger: the models stay in memory, and each candidate is put into one model in place."""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from mergekit.graph import Executor, Task
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask

from evomerge_optuna.merging.kernel import Inputs, Kernel, Shared
from evomerge_optuna.merging.kernels import GeneralKernel, choose_kernel
from evomerge_optuna.merging.memory import Budget, Scratch, size_of
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.plan import (
    MergePlan,
    TensorPlan,
    mergekit_errors,
    plan_merge,
    structure,
)
from evomerge_optuna.merging.uniforms import Uniforms
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.headers import headers_in
from evomerge_optuna.models.loading import model_of, model_with, torch_device
from evomerge_optuna.recipes.merge import MergeRecipe


class ResidentMerger:
    """Builds merged models in memory, bit for bit as `run_merge` writes them.

    mergekit plans every merge. What the plans of all recipes of one structure have in common (the
    models' tensors, aligned vocabularies, task vectors, ranks) is read and computed at the first
    merge and kept. The merged tensors are the parameters of one model, which the next merge
    overwrites.

    Args:
        device: "auto", "cpu" or "cuda".
        memory_limit: bytes to keep, None for 70% of what is free; what does not fit is read or
            computed again at every merge.
        say: told once what is kept.
    """

    def __init__(
        self,
        device: str,
        memory_limit: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._device = torch_device(device)
        self._memory_limit = memory_limit
        self._say = say
        self._resident: _Resident | None = None

    def load(self, recipe: MergeRecipe) -> None:
        """Reads and computes what all merges of this structure share.

        Raises:
            CandidateError, OSError: as `merge`.
        """
        with self._merging():
            self._resident_for(recipe, plan_merge(recipe))

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; it is valid until the next merge.

        Raises:
            CandidateError: mergekit refuses the recipe, or a weight is NaN or infinite.
            OSError: a model's file cannot be read.
        """
        with self._merging():
            plan = plan_merge(recipe)
            resident = self._resident_for(recipe, plan)
            transformers.set_seed(recipe.seed)
            resident.write(plan)
        digest = digest_tensors(resident.tensors)
        first = resident.is_new
        with mergekit_errors():
            model, tokenizer = resident.model_for(plan)
        if first:
            self._say(resident.summary())  # not above, where all output is kept quiet
        return Merged(model, tokenizer, digest)

    @contextmanager
    def _merging(self) -> Iterator[None]:
        gpus = [torch.cuda.current_device()] if self._device == "cuda" else []
        with mergekit_errors(), torch.random.fork_rng(gpus), torch.no_grad():
            yield

    def _resident_for(self, recipe: MergeRecipe, plan: MergePlan) -> "_Resident":
        wanted = structure(recipe)
        if self._resident is None or self._resident.structure != wanted:
            self._resident = None  # freed before the next one is filled
            budget = Budget.of(self._device, self._memory_limit)
            self._resident = _Resident(wanted, plan, self._device, budget)
        return self._resident


class _Resident:
    """What the merges of one structure of recipes share."""

    def __init__(
        self,
        structure: str,
        plan: MergePlan,
        device: str,
        budget: Budget,
    ) -> None:
        self.structure = structure
        self.tensors: dict[str, torch.Tensor] = {}
        self._order = plan.order()
        self._device = device
        self._budget = budget
        self._shared = Shared(budget, Uniforms(budget), Scratch(budget, device))
        self._kernels = self._read(plan)
        self._model: Any = None
        self._tokenizer: Any = None
        self._in_place = False

    @property
    def is_new(self) -> bool:
        """Has it no model yet?"""
        return self._model is None

    def write(self, plan: MergePlan) -> None:
        """Merges every tensor, in place where there is one from the merge before.

        torch has just been seeded; the masks of all tensors come from one stream of numbers.
        """
        self._shared.uniforms.restart()
        for name in self._order:
            tensor_plan, kernel = plan.tensors[name], self._kernels[name]
            merged = kernel.merge(tensor_plan.task, self.tensors.get(name))
            if merged is None:
                if not tensor_plan.optional:
                    raise RuntimeError(f"no value for required tensor {name}")
                continue
            if tensor_plan.dtype:
                merged = merged.to(tensor_plan.dtype)
            held = self.tensors.get(name)
            if held is None:
                # mergekit's own kernel may return one of its inputs.
                fresh = merged.clone() if isinstance(kernel, GeneralKernel) else merged
                self.tensors[name] = fresh.contiguous()
            elif held is not merged:
                held.copy_(merged)

    def model_for(self, plan: MergePlan) -> tuple[Any, Any]:
        """The model whose parameters are the merged tensors, and its tokenizer."""
        if self._model is None:
            with tempfile.TemporaryDirectory() as folder:
                plan.write_tokenizer(Path(folder))
                plan.config.save_pretrained(folder)
                self._model, self._tokenizer = model_of(self.tensors, Path(folder), self._device)
            self._in_place = _all_in(self._model, self.tensors)
        elif not self._in_place:
            # transformers made other tensors of them, by its rules for this architecture.
            generation_config = self._model.generation_config
            self._model = model_with(type(self._model), self._model.config, self.tensors)
            self._model.generation_config = generation_config
            self._model.to(self._device)
        return self._model, self._tokenizer

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
    """Bytes of the merged model, by the headers of the first model's files."""
    first = Path(plan.configuration.referenced_models()[0].model.path)
    headers = headers_in(first, str(first))
    return sum(
        headers[name].count * (tensor.dtype.itemsize if tensor.dtype else headers[name].itemsize)
        for name, tensor in plan.tensors.items()
        if name in headers
    )


def _all_in(model: Any, tensors: dict[str, torch.Tensor]) -> bool:
    """Are all tensors parameters of the model, so that it changes with them?"""
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    return all(tensor.data_ptr() in own for tensor in tensors.values())


def _placed(inputs: Inputs, device: str) -> Inputs:
    return {model: tensor.to(device) for model, tensor in inputs.items()}
