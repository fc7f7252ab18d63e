"""The table of merge kernels: the first that suits a tensor's inputs merges them.

Each gives, bit for bit, what mergekit's kernel of the same method gives. mergekit's own is the
general path, which any method in its registry takes.
"""

import torch
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask

from evomerge_optuna.merging.kernel import (
    Inputs,
    Kernel,
    KernelMemory,
    Layout,
    ListedKernel,
    Shared,
    chunks,
    empty_like,
)
from evomerge_optuna.merging.task_vectors import TaskVectorKernel
from evomerge_optuna.methods import BASELINES, METHODS, Method


class LinearKernel:
    """Weighted average of the models (mergekit's `linear`): accumulates in float32."""

    def __init__(self, task: ExecuteMergeMethodTask, inputs: Inputs, shared: Shared) -> None:
        self._tensors = [inputs[model] for model in task.model_order]

    @staticmethod
    def suits(layout: Layout) -> bool:
        """Up to four models, which torch.sum adds one after the other, as we do."""
        return layout.is_plain and layout.method == "linear" and len(layout.dtypes) <= _MOST_MODELS

    @staticmethod
    def memory(layout: Layout, drops: bool) -> KernelMemory:
        """Nothing beside the inputs, and a result of their dtype."""
        return KernelMemory(0, layout.input_bytes + layout.count * layout.dtypes[0].itemsize)

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor:
        first = self._tensors[0]
        given = [task.input_parameters[model]["weight"] for model in task.model_order]
        weights = torch.tensor([given], dtype=torch.float32, device=first.device)
        divisor = weights.sum(dim=1)
        result = empty_like(first, out)
        flat, *_ = rows = [tensor.reshape(-1) for tensor in self._tensors]
        for part in chunks(flat):
            total = torch.zeros_like(flat[part], dtype=torch.float32)
            for row, weight in zip(rows, weights.unbind(1), strict=True):
                total.addcmul_(row[part], weight)
            if task.parameters["normalize"]:
                total.div_(divisor)
            result.view(-1)[part] = total
        return result


class GeneralKernel:
    """Any method, by mergekit's own kernel."""

    def __init__(self, task: ExecuteMergeMethodTask, inputs: Inputs, shared: Shared) -> None:
        self._inputs = inputs

    @staticmethod
    def suits(layout: Layout) -> bool:
        return True

    @staticmethod
    def memory(layout: Layout, drops: bool) -> KernelMemory:
        """Nothing beside the inputs; at work what the method's row says."""
        each, source = _ROWS.get(layout.method, _UNKNOWN).work
        widest = max((dtype.itemsize for dtype in layout.dtypes), default=0)
        work = widest * (len(layout.dtypes) + layout.sources) + each + source * layout.sources
        return KernelMemory(0, work * layout.count)

    def merge(self, task: ExecuteMergeMethodTask, out: torch.Tensor | None) -> torch.Tensor | None:
        result: torch.Tensor | None = task.execute(tensors=self._inputs)
        return result


_MOST_MODELS = 4
_UNKNOWN = Method("", ())
_ROWS = METHODS | BASELINES

KERNELS: tuple[type[ListedKernel], ...] = (LinearKernel, TaskVectorKernel, GeneralKernel)


def kernel_for(layout: Layout) -> type[ListedKernel]:
    """The fastest kernel that gives mergekit's result for such inputs."""
    return next(kernel for kernel in KERNELS if kernel.suits(layout))


def choose_kernel(task: ExecuteMergeMethodTask, inputs: Inputs, shared: Shared) -> Kernel:
    """The fastest kernel for a task, with its inputs."""
    return kernel_for(Layout.of(task, inputs))(task, inputs, shared)
