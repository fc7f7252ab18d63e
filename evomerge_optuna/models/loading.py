"""A checkpoint in memory: its model, ready to run, and its tokenizer."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.devices import torch_device
from evomerge_optuna.errors import IncompleteError
from evomerge_optuna.quiet import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_model(
    folder: Path, device: str, dtype: str | None = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """A checkpoint's model, ready to run, and its tokenizer; safetensors only, no remote code.

    Args:
        dtype: in which it is to run; None: its own.

    Raises:
        SpecError: the device is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch_device(device)
    model = complete_model(AutoModelForCausalLM, folder, dtype=dtype or "auto")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return model.to(device).eval(), tokenizer


def in_dtype(model: "PreTrainedModel", dtype: str) -> "PreTrainedModel":
    """The model as it would be, had it been loaded in this dtype; the given one stays as it is.

    Parameters that are shared stay shared.
    """
    return on_device(model, None, dtype)


def on_device(
    model: "PreTrainedModel", device: str | None, dtype: str | None = None
) -> "PreTrainedModel":
    """The model as it would be, had it been loaded there; the given one stays as it is.

    Parameters that are shared stay shared, and those that need not be changed are the given ones.

    Args:
        device: None: where it is.
        dtype: None: its own.
    """
    import torch

    wanted = None if dtype is None else getattr(torch, dtype)
    parameters = [parameter.detach() for parameter in model.parameters()]
    moved = [parameter.to(device=device, dtype=wanted) for parameter in parameters]
    if all(new is old for new, old in zip(moved, parameters, strict=True)):
        return model
    memo = {
        id(own): own if new is old else torch.nn.Parameter(new, requires_grad=False)
        for own, old, new in zip(model.parameters(), parameters, moved, strict=True)
    }
    found = copy.deepcopy(model, dict(memo))
    return found if device is None else found.to(device)


def model_of(
    tensors: "dict[str, torch.Tensor]", folder: Path, device: str
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
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


def model_with(
    architecture: "type[PreTrainedModel]",
    config: "PretrainedConfig",
    tensors: "dict[str, torch.Tensor]",
) -> "PreTrainedModel":
    """A model of a class of transformers whose weights are these tensors, ready to run.

    Raises:
        IncompleteError: they are not all, or more than it has.
    """
    return complete_model(architecture, None, config=config, state_dict=tensors, dtype="auto")


def complete_model(
    kind: "type[PreTrainedModel]", folder: Path | None, **options: object
) -> "PreTrainedModel":
    """What `from_pretrained` of a class gives, if every tensor has its place and each place one.

    transformers makes up what is missing and leaves out what it does not know.

    Args:
        kind: a class of models, or one of transformers' auto classes.
        folder: safetensors only; None where the options have a state dict.

    Raises:
        IncompleteError: naming a tensor that is missing, unknown or of another shape.
    """
    with quiet():  # what it reports is raised below
        model, info = kind.from_pretrained(
            folder,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=None if folder is None else True,
            trust_remote_code=False,
            **options,
        )
    place = "the merged model" if folder is None else str(folder)
    for key, words in (
        ("missing_keys", "has no tensor {}, which its architecture needs"),
        ("mismatched_keys", "has a tensor {} of another shape than its config.json says"),
        ("unexpected_keys", "has a tensor {}, for which its architecture has no place"),
        ("conversion_errors", "has tensors of which {} cannot be made"),
    ):
        if found := sorted(map(_tensor_name, info.get(key, ()))):
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise IncompleteError(place, words.format(found[0] + more))
    return model


def _tensor_name(found: object) -> str:
    return str(found[0] if isinstance(found, tuple) else found)  # a mismatch comes with its shapes
