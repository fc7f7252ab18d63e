"""What kernels say of themselves; that they give mergekit's bits is in `test_resident`.

Covers merging.kernel, merging.registry and merging.task_vectors, too.
"""

import pytest
import torch
from mergekit import merge_methods
from mergekit.architecture import WeightInfo
from mergekit.common import ImmutableMap, ModelReference
from mergekit.io.tasks import GatherTensors
from mergekit.merge_methods import merge_tensors
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask

from evomerge_optuna.merging.kernel import Layout, Shared
from evomerge_optuna.merging.kernels import GeneralKernel, LinearKernel, kernel_for
from evomerge_optuna.merging.memory import Budget, Scratch
from evomerge_optuna.merging.task_vectors import TaskVectorKernel
from evomerge_optuna.merging.uniforms import Uniforms
from evomerge_optuna.methods import METHODS, Method
from tests.live_bytes import LiveBytes

SHAPE = (64, 1024)
_SCALARS = 1024  # bytes of sums and the like
# Slerp works in pieces of 2**20 elements, whose buffers are nothing beside a large tensor.
_PIECES = 48 * 2**20


def layout_of(row: Method, tensors: list[torch.Tensor]) -> Layout:
    return Layout(
        method=row.name,
        dtypes=tuple(tensor.dtype for tensor in tensors),
        count=tensors[0].numel(),
        is_complete=True,
        has_base=row.base != "ignored",
        on_gpu=False,
    )


def work_of_mergekit(row: Method, tensors: list[torch.Tensor]) -> int:
    """Bytes that mergekit's own kernel takes, with its inputs."""
    values = {p.name: p.for_mergekit({q.name: 0.5 for q in row.parameters}) for p in row.parameters}
    base = None if row.base == "ignored" else 0
    with LiveBytes() as live:
        merge_tensors(tensors, row.name, parameters=values, base_index=base)
    return live.peak + sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("row", METHODS.values(), ids=METHODS)
def test_mergekits_kernels_take_what_their_rows_say(row: Method, dtype: torch.dtype) -> None:
    least, most = row.sources
    slack = _PIECES if row.name == "slerp" else _SCALARS
    for sources in range(least, (most or 4) + 1):
        count = sources + (row.base != "ignored")
        tensors = [torch.randn(SHAPE, dtype=dtype) for _ in range(count)]
        said = GeneralKernel.memory(layout_of(row, tensors), drops=True)
        taken = work_of_mergekit(row, tensors)
        assert said.kept == 0
        assert taken <= said.work + slack
        if dtype == torch.float32:
            assert said.work <= 2 * taken


def test_the_fastest_kernel_that_gives_mergekits_bits() -> None:
    def chosen(method: str, sources: int, **other: object) -> type:
        count = sources + (METHODS[method].base != "ignored")
        tensors = [torch.zeros(2, 3)] * count
        layout = layout_of(METHODS[method], tensors)
        return kernel_for(Layout(**{**vars(layout), **other}))

    assert chosen("linear", 4) is LinearKernel
    assert chosen("linear", 5) is GeneralKernel
    assert chosen("slerp", 1) is GeneralKernel
    for method in ("task_arithmetic", "ties", "dare_linear", "dare_ties"):
        assert chosen(method, 1) is chosen(method, 4) is TaskVectorKernel
        assert chosen(method, 5) is GeneralKernel
        assert chosen(method, 2, is_complete=False) is GeneralKernel
        assert chosen(method, 1, dtypes=(torch.float32, torch.bfloat16)) is GeneralKernel
        on_gpu = GeneralKernel if "dare" in method else TaskVectorKernel
        assert chosen(method, 2, on_gpu=True) is on_gpu


def test_methods_are_mergekits() -> None:
    assert METHODS.keys() <= {method.spec.name for method in merge_methods.registered_methods()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_task_vectors_take_what_their_kernel_says(method: str, dtype: torch.dtype) -> None:
    for sources in (1, 4):
        models = [ModelReference.model_validate(f"m{n}") for n in range(1 + sources)]
        inputs = {model: torch.randn(1024, 1024, dtype=dtype) for model in models}
        given = {"weight": 0.5, "density": 0.5}
        task = a_task(method, models, given, {"normalize": True, "rescale": "dare" in method})
        budget = Budget(limit=0)
        shared = Shared(budget, Uniforms(budget), Scratch(budget, "cpu"))
        out = torch.empty_like(inputs[models[0]])
        with LiveBytes() as live, torch.no_grad():
            TaskVectorKernel(task, inputs, shared).merge(task, out)
        taken = live.peak + sum(tensor.nbytes for tensor in inputs.values())
        said = TaskVectorKernel.memory(Layout.of(task, inputs), drops=True).work
        # Of each task vector a piece for each thread, in the cache.
        pieces = 2 * (sources + 2) * 2**18 * dtype.itemsize * torch.get_num_threads()
        assert taken - pieces <= said <= 1.5 * taken


def a_task(
    method: str,
    models: list[ModelReference],
    given: dict[str, float],
    options: dict[str, bool],
) -> ExecuteMergeMethodTask:
    weight = WeightInfo(name="w")
    return ExecuteMergeMethodTask(
        method_name=method,
        gather_tensors=GatherTensors(weight_info=ImmutableMap(dict.fromkeys(models, weight))),
        model_order=tuple(models),
        base_model=models[0],
        output_weight=weight,
        parameters=ImmutableMap({"lambda": 1.0, "int8_mask": False, **options}),
        input_parameters=ImmutableMap({model: ImmutableMap(given) for model in models[1:]}),
    )
