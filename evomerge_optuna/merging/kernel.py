"""What a merge kernel is: it computes one tensor of a merge, and says what memory that takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from mergekit.common import ModelReference
from mergekit.merge_methods.base import BasePolicy
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask

from evomerge_optuna.merging import registry
from evomerge_optuna.merging.memory import Budget, Scratch
from evomerge_optuna.merging.uniforms import Uniforms
from evomerge_optuna.models.headers import Header

Inputs = dict[ModelReference, torch.Tensor]
TORCH = {  # safetensors' names of the types that a model which can be merged may have
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16},
    **{"I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool},
}


@dataclass(frozen=True)
class Layout:
    """What is known of the inputs of one merged tensor before they are read.

    It decides which kernel merges them, and how much memory that takes.

    Args:
        method: mergekit's name of the merge method.
        dtypes: of the tensor in each model that has it, in the order of the models.
        count: elements of the tensor.
        is_complete: every model has it, in one shape.
        has_base: one of the inputs is that of the base model, which others are compared with.
        on_gpu: it is merged on a GPU.
    """

    method: str
    dtypes: tuple[torch.dtype, ...]
    count: int
    is_complete: bool
    has_base: bool
    on_gpu: bool

    @classmethod
    def of(cls, task: ExecuteMergeMethodTask, inputs: Inputs) -> "Layout":
        """The layout of a task whose inputs have been read."""
        tensors = [inputs[model] for model in task.model_order if model in inputs]
        return cls(
            method=task.method_name,
            dtypes=tuple(tensor.dtype for tensor in tensors),
            count=tensors[0].numel() if tensors else 0,
            is_complete=len(tensors) == len(task.model_order)
            and all(tensor.shape == tensors[0].shape for tensor in tensors),
            has_base=task.base_model in inputs and not ignores_base(task.method_name),
            on_gpu=not all(tensor.is_cpu for tensor in tensors),
        )

    @classmethod
    def by_headers(
        cls,
        task: ExecuteMergeMethodTask,
        headers: Mapping[ModelReference, Header],
        dtype: torch.dtype | None,
        on_gpu: bool,
    ) -> "Layout":
        """The layout of a task before its inputs are read.

        Args:
            headers: of the tensor in each model that has it.
            dtype: in which they are merged; None: as they are stored.
        """
        found = [headers[model] for model in task.model_order if model in headers]
        return cls(
            method=task.method_name,
            dtypes=tuple(dtype or TORCH[header.dtype] for header in found),
            count=max((header.count for header in found), default=0),
            is_complete=len(found) == len(task.model_order)
            and all(header.shape == found[0].shape for header in found),
            has_base=task.base_model in headers and not ignores_base(task.method_name),
            on_gpu=on_gpu,
        )

    @property
    def sources(self) -> int:
        """Number of inputs beside the base model's."""
        return len(self.dtypes) - self.has_base

    @property
    def input_bytes(self) -> int:
        """Bytes of all inputs."""
        return self.count * sum(dtype.itemsize for dtype in self.dtypes)

    @property
    def is_plain(self) -> bool:
        """Do all models have the tensor, in one shape and one dtype that the fast kernels know?"""
        return self.is_complete and len(set(self.dtypes)) == 1 and self.dtypes[0] in _DTYPES


_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class KernelMemory:
    """Bytes that a kernel takes.

    Args:
        kept: from merge to merge, as far as there is room, beside its inputs.
        work: at most, while it merges, with its inputs if they are not kept.
    """

    kept: int
    work: int


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


class ListedKernel(Kernel, Protocol):
    """A kernel of the table `kernels.KERNELS`."""

    def __init__(self, task: ExecuteMergeMethodTask, inputs: Inputs, shared: Shared) -> None: ...

    @staticmethod
    def suits(layout: Layout) -> bool:
        """Does it give mergekit's result for such inputs?"""
        ...

    @staticmethod
    def memory(layout: Layout, drops: bool) -> KernelMemory:
        """What it takes for such inputs.

        Args:
            drops: whether a density below 1 drops a part of the task vectors.
        """
        ...


def ignores_base(method: str) -> bool:
    """Is the base model one input like any other to this method of mergekit?"""
    return bool(registry.get(method).spec.contract.base == BasePolicy.IGNORED)


def chunks(flat: torch.Tensor) -> Iterator[slice]:
    """Slices whose buffers stay in cache (1 MB a core each); on a GPU far larger ones."""
    size = 2**18 * torch.get_num_threads() if flat.is_cpu else 2**24
    for start in range(0, max(1, len(flat)), size):
        yield slice(start, start + size)


def empty_like(tensor: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    if (
        out is not None
        and (out.shape, out.dtype, out.device) == (tensor.shape, tensor.dtype, tensor.device)
        and out.is_contiguous()
    ):
        return out
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)
