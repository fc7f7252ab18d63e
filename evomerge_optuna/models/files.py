"""Are a checkpoint's files one model, which all programs read alike, and not quantized?

Only indexes and headers are read.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.shards import single_and_index, weight_files, weight_map

# torch's names of safetensors' types, which more people know.
_NAMES = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "U8": "uint8", "I8": "int8"}
_FLOATS = ("F64", "F32", "F16", "BF16")
# What GPTQ, AWQ, bitsandbytes, compressed-tensors, fp8 and MXFP4 call what they store. Other
# integers are buffers, as the masks of GPT-NeoX are.
_QUANTIZED = re.compile(
    r"\.(weight|qweight|qzeros|g_idx|SCB|weight_packed|weight_scale(_inv)?|\w+_(blocks|scales)"
    r"|weight\.(absmax|quant_map|quant_state\..*|nested_\w+))$"
)
_DEQUANTIZE = (
    "quantized weights cannot be merged; name the model they were made from, or load it with "
    "transformers, dequantize first (model.dequantize()), and save it with save_pretrained"
)


def check_index(folder: Path, where: str) -> None:
    """Refuses weights that some programs read from one file and others from another.

    Raises:
        SpecError: beginning with `where`: an index beside a single file that it does not name, or
            one that names a file that is not there.
    """
    single, index = single_and_index(folder)
    if not (folder / index).is_file():
        return
    named = set(weight_map(folder).values())
    if (folder / single).is_file() and named != {single}:
        raise SpecError(
            f"{where}: {single} and {index} are two models in one folder: transformers reads the "
            "first, mergekit the second; remove the one that is stale, with its files"
        )
    if missing := sorted(name for name in named if not (folder / name).is_file()):
        raise SpecError(
            f"{where}: {index} names {missing[0]}, which is not there; take another copy of the "
            "model"
        )


def check_files(folder: Path, where: str) -> None:
    """Refuses an index that is not that of the files it names, and quantized weights.

    Raises:
        SpecError: beginning with `where`, naming the file and the tensor.
    """
    from safetensors import SafetensorError, safe_open

    check_index(folder, where)
    _, index = single_and_index(folder)
    indexed = weight_map(folder) if (folder / index).is_file() else None
    found: dict[str, str] = {}
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = list(tensors.keys())
                check_types({n: tensors.get_slice(n).get_dtype() for n in names}, where)
        except (SafetensorError, OSError) as error:
            raise SpecError(
                f"{where}: {file.name} cannot be read: {error}; take another copy of the model"
            ) from error
        found |= dict.fromkeys(names, file.name)
    if indexed is None:
        return
    for name in sorted(indexed.keys() | found.keys()):
        if indexed.get(name) != found.get(name):
            raise SpecError(
                f"{where}: tensor {name} is in {found.get(name, 'no file')}, but {index} has it "
                f"in {indexed.get(name, 'none')}; take another copy of the model"
            )


def check_unquantized(config: Mapping[str, Any], where: str) -> None:
    """Refuses a configuration that says how weights are quantized.

    Raises:
        SpecError: beginning with `where`.
    """
    for part in (config, config.get("text_config") or {}):
        if (settings := part.get("quantization_config")) is not None:
            method = settings.get("quant_method") or "a quantization_config"
            raise SpecError(f"{where}: config.json says {method}; {_DEQUANTIZE}")


def check_types(types: Mapping[str, str], where: str) -> None:
    """Refuses quantized tensors, by safetensors' names of their types.

    Raises:
        SpecError: beginning with `where`, naming the tensor.
    """
    for name, dtype in types.items():
        eight_bits_or_less = dtype.startswith(("F8", "F6", "F4"))
        if eight_bits_or_less or (dtype not in _FLOATS and _QUANTIZED.search(name)):
            raise SpecError(f"{where}: tensor {name} is {_NAMES.get(dtype, dtype)}; {_DEQUANTIZE}")
