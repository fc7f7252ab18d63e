"""Which of a machine's devices an engine of vLLM runs on: the spec's, or several from it on."""

from evomerge_optuna.devices import count, is_accelerator, torch_device
from evomerge_optuna.errors import SpecError
from evomerge_optuna.machine import is_alone
from evomerge_optuna.spec import EvaluationSpec


def spread(spec: EvaluationSpec) -> int:
    """Over how many devices a model is spread."""
    size = spec.engine_args.get("tensor_parallel_size", 1)
    return size if isinstance(size, int) else 1  # vLLM says what is wrong with it


def device_ids(spec: EvaluationSpec) -> list[int] | None:
    """The numbers of the devices; None: the first ones, which vLLM takes by itself."""
    first = _number(torch_device(spec.device))
    return list(range(first, first + spread(spec))) if first else None


def check_spread(spec: EvaluationSpec) -> None:
    """Checks that there are devices for a model that is spread over several.

    Raises:
        SpecError: there are not so many, or other workers take them, too.
    """
    device, size = torch_device(spec.device), spread(spec)
    if size == 1 or not is_accelerator(device):
        return
    place = f"evaluation.engine_args: tensor_parallel_size: {size}"
    if (there := count() - _number(device)) < size:
        raise SpecError(f"{place}: from {device} on there are {there}; write {there} or less")
    if not is_alone():
        raise SpecError(
            f"{place}: several workers would share devices; write --workers 1, and start each "
            "worker with devices of its own, as by CUDA_VISIBLE_DEVICES"
        )


def _number(device: str) -> int:
    """The device's, counted from 0; 0 of the CPU."""
    return int(device.partition(":")[2] or 0)
