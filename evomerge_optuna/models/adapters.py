"""Adapters: `model+adapter`, mergekit's notation, as an ordinary checkpoint that peft makes."""

import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.derived import derived_folder
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES, fingerprint

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


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


def check_adapter_fits(config: "PretrainedConfig", adapter: Path, where: str) -> None:
    """Compares an adapter's tensors with those that its base model, of this configuration, takes.

    Only the adapter's header is read, and the model is one without memory.

    Raises:
        SpecError: beginning with `where`: peft cannot merge this type of adapter, or it was made
            for another model.
    """
    import torch
    from peft import get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    settings = _read_settings(adapter, where)
    try:
        with torch.device("meta"), _quiet():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
            wanted = get_peft_model_state_dict(get_peft_model(model, settings))
    except Exception as error:  # peft has an error of its own for every target that is not there
        raise SpecError(
            f"{where}: peft cannot put it on this base model: {one_line(error, 200)}; name the "
            "model that it was trained on"
        ) from error
    want = {name: list(tensor.shape) for name, tensor in wanted.items()}
    have = _shapes(adapter / ADAPTER_WEIGHTS, where)
    for name in sorted(want.keys() | have.keys()):
        if want.get(name) != have.get(name):
            raise SpecError(
                f"{where}: tensor {name} has shape {have.get(name)}, but this base model takes "
                f"{want.get(name)}; name the model that it was trained on"
            )


def merged_folder(base: Path, adapter: Path, name: str) -> Path:
    """The checkpoint of the base model with the adapter merged into it, written once and kept.

    In the base model's dtype and with its tokenizer; the same tensors as mergekit makes of
    `model+adapter`, which calls peft alike.

    Args:
        name: of both, for messages.

    Raises:
        SpecError: they do not fit, or peft cannot merge them.
    """

    def write(folder: Path) -> None:
        from peft import PeftModel
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        check_adapter_fits(config, adapter, name)
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", use_safetensors=True, trust_remote_code=False
        )
        try:
            with _quiet():
                merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        except (NotImplementedError, ValueError, RuntimeError, TypeError) as error:
            raise SpecError(
                f"{name}: peft cannot merge it: {one_line(error, 200)}; merge it yourself and name "
                "the checkpoint"
            ) from error
        merged.save_pretrained(folder)
        for file in TOKENIZER_FILES:
            if (base / file).is_file():
                shutil.copyfile(base / file, folder / file)

    both = hashlib.sha256(repr(fingerprint(base, adapter)).encode()).hexdigest()
    return derived_folder("adapter", both[:16], write)


def _read_settings(adapter: Path, where: str) -> Any:
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


@contextmanager
def _quiet() -> Iterator[None]:
    """peft warns of a base model that lies elsewhere than where the adapter was trained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shapes(file: Path, where: str) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            return {n: opened.get_slice(n).get_shape() for n in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise SpecError(
            f"{where}: {file.name} cannot be read: {error}; take another copy"
        ) from error
