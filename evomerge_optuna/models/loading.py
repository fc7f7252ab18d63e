"""A checkpoint in memory: its model, ready to run, and its tokenizer."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.catalog import load_processor
from evomerge_optuna.models.vision import sees

if TYPE_CHECKING:
    import torch


def torch_device(name: str) -> str:
    """cpu or cuda for a spec's `evaluation.device`.

    Raises:
        SpecError: cuda is asked for where there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SpecError("evaluation.device: torch finds no CUDA device; write cpu or auto")
    return name


def load_model(folder: Path, device: str, dtype: str | None = None) -> tuple[Any, Any]:
    """A checkpoint's model, ready to run, and its tokenizer; safetensors only, no remote code.

    Args:
        dtype: in which it is to run; None: its own.

    Raises:
        SpecError: the device is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch_device(device)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return model.to(device).eval(), tokenizer


def in_dtype(model: Any, dtype: str) -> Any:
    """The model as it would be, had it been loaded in this dtype; the given one stays as it is.

    Parameters that are shared stay shared.
    """
    import torch

    wanted: torch.dtype = getattr(torch, dtype)
    cast = {
        id(p): torch.nn.Parameter(p.detach().to(wanted), requires_grad=False)
        for p in model.parameters()
        if p.dtype != wanted
    }
    return copy.deepcopy(model, dict(cast)) if cast else model


def load_checkpoint(
    folder: Path, device: str, dtype: str | None = None
) -> tuple[Any, Any, Any | None]:
    """As `load_model`, and a vision-language model's processor; of other models None.

    Raises:
        SpecError: the device is not there, or its processor cannot be made.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    if not sees(AutoConfig.from_pretrained(folder, trust_remote_code=False)):
        return *load_model(folder, device, dtype), None
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype or "auto", use_safetensors=True, trust_remote_code=False
    )
    processor = load_processor(str(folder), str(folder))
    return model.to(torch_device(device)).eval(), processor.tokenizer, processor


def model_of(tensors: "dict[str, torch.Tensor]", folder: Path, device: str) -> tuple[Any, Any]:
    """The model that `load_model` would load, had the folder these tensors as its weights.

    The model's parameters are the tensors themselves wherever transformers takes them as they are.
    """
    import transformers
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    architecture = getattr(transformers, config.architectures[0])
    model = model_with(architecture, config, tensors)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return model.to(device).eval(), tokenizer


def model_with(architecture: Any, config: Any, tensors: "dict[str, torch.Tensor]") -> Any:
    """A model of a class of transformers whose weights are these tensors, ready to run."""
    return architecture.from_pretrained(None, config=config, state_dict=tensors, dtype="auto")
