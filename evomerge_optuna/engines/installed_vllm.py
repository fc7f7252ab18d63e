"""The vLLM that is installed: imported, checked, and what it takes of a device's memory."""

import os
from typing import Any

from evomerge_optuna.devices import memory_of, torch_device
from evomerge_optuna.engines.base import EngineMemory
from evomerge_optuna.engines.spread import check_spread, spread
from evomerge_optuna.errors import SpecError
from evomerge_optuna.quiet import quiet
from evomerge_optuna.spec import EvaluationSpec

# What vLLM looks at when it is imported; what the environment says stays, but for the first.
_IN_THIS_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
_VARIABLES = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # workers of one machine would bind to the same cores
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process whose threads compute may hang
}
_CACHE_ON_CPU = 2 * 2**30  # bytes of keys and values; vLLM itself would take most of the memory


def check_vllm(spec: EvaluationSpec) -> None:
    """Checks that vLLM is here, runs on the spec's device and knows its arguments.

    Raises:
        SpecError: it is not so.
    """
    vllm = installed_vllm()
    with quiet():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform

    device, own = torch_device(spec.device), current_platform.device_type
    if device.partition(":")[0] != own:
        raise SpecError(
            f"evaluation.device: the installed vLLM {vllm.__version__} runs on {own}, not on "
            f"{device}; write {own}, or engine: transformers"
        )
    unknown = sorted(spec.engine_args.keys() - EngineArgs.__dataclass_fields__.keys())
    if unknown:
        raise SpecError(
            f"evaluation.engine_args: vLLM {vllm.__version__} has no argument {unknown[0]}; "
            "remove it"
        )
    check_spread(spec)


def memory_of_vllm(spec: EvaluationSpec, _: int = 0) -> EngineMemory:
    """What vLLM takes when it starts: a part of a GPU, or so much for keys and values."""
    installed_vllm()
    with quiet():
        from vllm.engine.arg_utils import EngineArgs

    given = default_arguments() | spec.engine_args
    if (cache := given.get("kv_cache_memory_bytes")) is not None:
        return EngineMemory(cache=int(cache))
    usual = EngineArgs.__dataclass_fields__["gpu_memory_utilization"].default
    share = float(given.get("gpu_memory_utilization", usual))
    whole = memory_of(torch_device(spec.device))[1]
    return EngineMemory(engine=int(share * whole), devices=spread(spec))


def installed_vllm() -> Any:
    """vLLM, imported so that it runs in this process.

    Raises:
        SpecError: it is not installed.
    """
    os.environ.update(_IN_THIS_PROCESS)
    for variable, value in _VARIABLES.items():
        os.environ.setdefault(variable, value)
    try:
        with quiet():
            import vllm
    except ImportError as error:
        raise SpecError(
            f"evaluation.engine: needs vLLM ({error}); pip install 'evomerge-optuna[vllm]', or "
            "write engine: transformers"
        ) from error
    return vllm


def default_arguments() -> dict[str, Any]:
    """Arguments where the spec gives none."""
    from vllm.platforms import current_platform

    # As many positions as the model has, or as there is memory for.
    common = {"max_model_len": -1, "seed": 0}
    if not current_platform.is_cpu():
        return common
    return common | {"enforce_eager": True, "kv_cache_memory_bytes": _CACHE_ON_CPU}
