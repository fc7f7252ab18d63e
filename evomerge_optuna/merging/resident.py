"""Resident merger: what merges of one structure share stays in memory from merge to merge.

What does not fit is streamed: the next tensor's inputs are on their way while one is merged.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import transformers
from mergekit.common import ModelReference, dtype_from_name
from mergekit.graph import Executor, Task

from evomerge_optuna.devices import (
    Lane,
    Sent,
    is_accelerator,
    pinned,
    pinned_size,
    torch_device,
)
from evomerge_optuna.merging.ahead import ahead, read_through
from evomerge_optuna.merging.kernel import Inputs, Kernel, Layout, Shared
from evomerge_optuna.merging.kernels import GeneralKernel, choose_kernel, kernel_for
from evomerge_optuna.merging.memory import Budget, Room, Scratch, size_of
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
    merge and kept, as far as there is room on the device. Inputs for which there is none are kept
    in pinned memory of the machine, and where that is full, too, read at every merge from the
    models' files, which are mapped.

    Args:
        device: as in a spec, "auto" or "cuda:1".
        memory_limit: bytes to keep on the device, None for 70% of what is free.
        say: is given a line about what is kept, after the first merge.
        engine: bytes of the device that the receiver takes; None: those of the merged model.
    """

    def __init__(
        self,
        device: str,
        memory_limit: int | None = None,
        say: Callable[[str], None] = lambda _: None,
        engine: int | None = None,
    ) -> None:
        self.device = torch_device(device)
        self._engine = engine
        self._named = device
        self._memory_limit = memory_limit
        self._say = say
        self._resident: _Resident | None = None
        self._is_announced = False

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
        if not self._is_announced:
            self._is_announced = True
            self._say(resident.summary())

    def _resident_for(self, kind: str, plan: MergePlan) -> "_Resident":
        if self._resident is None or self._resident.structure != kind:
            self._resident = None  # freed before the next one is filled
            taken = _taken(plan, self.device, self._engine)
            room = Room.of(self._named, self._memory_limit, taken)
            self._resident = _Resident(kind, plan, self.device, room)
        return self._resident


class _Resident:
    """What the merges of one structure of recipes share."""

    def __init__(self, structure: str, plan: MergePlan, device: str, room: Room) -> None:
        self.structure = structure
        self._order = plan.order()
        self._device = device
        self._lane = Lane(device)
        self._room = room
        budget = room.device
        self._shared = Shared(budget, Uniforms(budget), Scratch(budget, device))
        self._kernels: dict[str, Kernel] = {}  # of the tensors whose inputs are on the device
        self._streamed: dict[str, Callable[[], Inputs]] = {}  # gives the inputs of the others
        self._on_disk = 0  # bytes of inputs
        self._read(plan)

    @torch.no_grad()  # the receiver's memory may be the parameters of a model
    def tensors(self, plan: MergePlan, into: Memory) -> Iterator[NamedTensor]:
        """Merges one tensor after the other.

        torch has just been seeded; the masks of all tensors come from one stream of numbers.
        """
        self._shared.uniforms.restart()
        streamed = [partial(self._send, name) for name in self._order if name in self._streamed]
        with ahead(streamed) as inputs:
            for name in self._order:
                kernel = self._kernels.get(name)
                if kernel is None:
                    kernel = self._kernel_for_once(plan.tensors[name], next(inputs))
                merged = self._merge(plan.tensors[name], kernel, into.get(name))
                del kernel  # and the inputs that it alone holds
                if merged is not None:
                    yield name, merged

    def _merge(
        self, plan: TensorPlan, kernel: Kernel, out: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The tensor, in `out` if it fits there; None where mergekit leaves it out."""
        with quiet() if isinstance(kernel, GeneralKernel) else nullcontext():
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

    def _send(self, name: str) -> tuple[list[ModelReference], Sent]:
        """Begins to bring the inputs of a tensor onto the device; runs in a thread of its own."""
        inputs = self._streamed[name]()
        return list(inputs), self._lane.send([read_through(x) for x in inputs.values()])

    def _kernel_for_once(self, plan: TensorPlan, sent: tuple[list[ModelReference], Sent]) -> Kernel:
        models, tensors = sent
        inputs = dict(zip(models, tensors.received(), strict=True))
        return choose_kernel(plan.task, inputs, replace(self._shared, budget=Budget(limit=0)))

    def _read(self, plan: MergePlan) -> None:
        """Reads the inputs of every tensor once; chooses where they stay, and the kernels."""
        wanted: dict[Task, list[TensorPlan]] = defaultdict(list)
        for tensor_plan in plan.tensors.values():
            wanted[tensor_plan.task.gather_tensors].append(tensor_plan)
        for task, inputs in Executor(list(wanted)).run(quiet=True):
            if self._room.device.fits(size_of(*inputs.values())):
                placed = {model: tensor.to(self._device) for model, tensor in inputs.items()}
                for tensor in wanted[task]:
                    self._kernels[tensor.name] = choose_kernel(tensor.task, placed, self._shared)
                continue
            again = self._kept_in_host(inputs) or partial(_read_again, task)
            for tensor in wanted[task]:
                self._streamed[tensor.name] = again

    def _kept_in_host(self, inputs: Inputs) -> Callable[[], Inputs] | None:
        """Keeps the inputs in pinned memory, if there is room."""
        if not self._room.host.fits(sum(pinned_size(size_of(x)) for x in inputs.values())):
            self._on_disk += size_of(*inputs.values())
            return None
        held = {model: pinned(tensor, self._device) for model, tensor in inputs.items()}
        return lambda: held

    def summary(self) -> str:
        """What is kept where, and what is not for want of memory."""
        on_device, in_host = self._room.device, self._room.host
        place = self._device if is_accelerator(self._device) else "memory"
        kept = f"models in memory: {on_device.used / 1e9:.2f} GB are kept between trials"
        if not on_device.refused:
            return kept
        said = (
            f"{kept}; {on_device.refused / 1e9:.2f} GB more do not fit into "
            f"{on_device.limit / 1e9:.2f} GB of {place}"
        )
        if in_host.used:
            said += f", of which {in_host.used / 1e9:.2f} GB stay in pinned memory"
        streamed = "are streamed to each merge" if self._streamed else "are computed at each merge"
        if self._on_disk:
            streamed = f"{self._on_disk / 1e9:.2f} GB on disk; they {streamed}"
        else:
            streamed = f"they {streamed}"
        return f"{said}, {streamed}; raise evaluation.memory_limit if there is memory"


def _read_again(task: Task) -> Inputs:
    """The inputs from the models' files, as they were read the first time."""
    ((_, inputs),) = Executor([task]).run(quiet=True)
    found: Inputs = inputs
    return found


def _taken(plan: MergePlan, device: str, engine: int | None) -> int:
    """Bytes that are needed whether anything can be kept or not, by the headers of the models.

    The merged model, or what the engine takes; on an accelerator the work on a tensor, too.
    """
    merged: dict[str, int] = defaultdict(int)
    work = 0
    headers = {
        model: headers_in(Path(model.model.path), model.model.path)
        for model in plan.configuration.referenced_models()
    }
    dtype = dtype_from_name(plan.configuration.dtype)
    for name, tensor in plan.tensors.items():
        found = {model: own[name] for model, own in headers.items() if name in own}
        for header in found.values():
            itemsize = tensor.dtype.itemsize if tensor.dtype else header.itemsize
            merged[name] = max(merged[name], header.count * itemsize)
        layout = Layout.by_headers(tensor.task, found, dtype, is_accelerator(device))
        inputs = layout.input_bytes  # of the next tensor, which are there, too
        work = max(work, kernel_for(layout).memory(layout, drops=True).work + inputs)
    held = sum(merged.values()) if engine is None else engine
    return held + (work if is_accelerator(device) else 0)


def _is_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether one can take the other's values as they are."""
    return (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
