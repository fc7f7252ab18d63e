"""Adapters: `model+adapter`, mergekit's notation. Does one fit on its base model?"""

import copy
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PretrainedConfig

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_EXPERT = re.compile(r"\.experts\.\d+\.")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")

Shapes = Mapping[str, list[int]]  # by the tensor's name


@dataclass(frozen=True)
class _Taken:
    """The tensors that a model takes of an adapter."""

    required: Shapes
    optional: Shapes  # whole embeddings, which peft saves where they were resized, or if told to
    embeddings: tuple[str, ...]  # what the names of the embeddings and of an untied head begin with


def split_adapter(model: str) -> tuple[str, str | None]:
    """The base model's name and the adapter's, None where there is none.

    Example:
        >>> split_adapter("organisation/model@v1+organisation/adapter")
        ('organisation/model@v1', 'organisation/adapter')
    """
    base, plus, adapter = model.partition("+")
    return base, adapter if plus else None


def check_adapter_files(folder: Path, where: str) -> None:
    """Refuses a folder without an adapter's files.

    Raises:
        SpecError: beginning with `where`.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        raise SpecError(
            f"{where} has no {ADAPTER_CONFIG}, so it is no adapter; name one that peft has saved"
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise SpecError(
            f"{where} has no {ADAPTER_WEIGHTS}; pickled adapters (adapter_model.bin) are refused "
            "because they can run code. Convert it with peft's save_pretrained"
        )


def has_tokenizer(adapter: Path) -> bool:
    """Is there a tokenizer beside an adapter? It is the one that the adapter was trained with."""
    return any((adapter / name).is_file() for name in _VOCABULARIES)


def config_with_adapter(
    config: "PretrainedConfig", adapter: Path, where: str
) -> "PretrainedConfig":
    """The base model's configuration with the adapter, which may have added tokens.

    The adapter's tensors are compared with those that the base model takes: only the adapter's
    header is read, and the model is one without memory.

    Raises:
        SpecError: beginning with `where`: peft cannot merge this type of adapter, or it was made
            for another model.
    """
    settings = _read_settings(adapter, where)
    have = _shapes(adapter / ADAPTER_WEIGHTS, where)
    taken = _taken(config, settings, where)
    if taken is None:
        return config  # whether it fits is seen when it is merged
    if (rows := _rows(have, taken, config.vocab_size)) != config.vocab_size:
        config = copy.deepcopy(config)
        config.vocab_size = rows
        taken = _taken(config, settings, where) or taken
    for name in sorted(taken.required.keys() | have.keys()):
        want = taken.required.get(name) or taken.optional.get(name)
        if want != have.get(name):
            own = ""
            if name.startswith(taken.embeddings):
                own = "added tokens"
            elif _EXPERT.search(name):  # newer transformers have all of a layer in one tensor
                own = "is of a model whose experts were modules of their own"
            or_else = f", or, if it {own}, merge it where it was trained and name the checkpoint"
            raise SpecError(
                f"{where}: tensor {name} has shape {have.get(name)}, but this base model takes "
                f"{want}; name the model that it was trained on{or_else if own else ''}"
            )
    return config


def _rows(have: Shapes, taken: _Taken, rows: int) -> int:
    """The rows of the embeddings as the adapter has them; the base model's where it has not all."""
    found = {
        prefix: shape[0]
        for prefix in taken.embeddings
        for name, shape in have.items()
        if name.startswith(prefix)
        and name.endswith(".weight")
        and [rows, *shape[1:]] == {**taken.optional, **taken.required}.get(name)
    }
    every = set(found.values())
    return every.pop() if len(every) == 1 and len(found) == len(taken.embeddings) else rows


def _taken(config: "PretrainedConfig", settings: "PeftConfig", where: str) -> _Taken | None:
    """What a model of this configuration takes; None where peft cannot tell without its weights."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the model has no place that peft could name
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            ends = [model.get_input_embeddings()]
            if not config.tie_word_embeddings:
                ends.append(model.get_output_embeddings())
            embeddings = tuple(
                f"base_model.model.{name}."
                for name, module in model.named_modules()
                if any(module is end for end in ends)
            )
            adapted = get_peft_model(model, copy.deepcopy(settings))
            required, every = (
                _as_lists(get_peft_model_state_dict(adapted, save_embedding_layers=saved))
                for saved in (False, True)
            )
    except Exception as error:  # peft has an error of its own for every target that is not there
        if "meta tensor" in str(error):
            return None
        raise SpecError(
            f"{where}: peft cannot put it on this base model: {one_line(error, 200)}; name the "
            "model that it was trained on"
        ) from error
    return _Taken(required, {k: v for k, v in every.items() if k not in required}, embeddings)


def _as_lists(tensors: Mapping[str, Any]) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in tensors.items()}


def _read_settings(adapter: Path, where: str) -> "PeftConfig":
    """peft's configuration of an adapter that can be merged."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner

    try:
        settings = PeftConfig.from_pretrained(adapter)
    except Exception as error:  # what is wrong with a file, peft says in many ways
        raise SpecError(
            f"{where}: {ADAPTER_CONFIG} cannot be read: {one_line(error, 200)}; take another copy"
        ) from error
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(settings.peft_type)
    replicated = getattr(settings, "layer_replication", None)
    if not (isinstance(tuner, type) and issubclass(tuner, BaseTuner)) or replicated:
        kind = "that replicates layers" if replicated else f"of type {settings.peft_type.value}"
        raise SpecError(
            f"{where}: an adapter {kind} cannot be merged into a model's weights; "
            "name a LoRA adapter, or leave it out"
        )
    settings.inference_mode = True
    if hasattr(settings, "init_lora_weights"):
        settings.init_lora_weights = False  # some ways to begin compute with the model's weights
    return settings


def _shapes(file: Path, where: str) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {n: opened.get_slice(n).get_shape() for n in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SpecError(
            f"{where}: {file.name} cannot be read: {error}; take another copy"
        ) from error
