"""Where a model comes from: a hub id with or without `@REVISION`, a local folder, `zoo:NAME`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.home import models_folder
from evomerge_optuna.models.vlm_zoo import VLM_ZOO, build_vlm_zoo
from evomerge_optuna.models.zoo import ZOO, OnStep, build_zoo

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ZOO_PREFIX = "zoo:"
ZOO_MODELS = tuple(ZOO_PREFIX + name for name in (*ZOO, *VLM_ZOO))

# Everything a checkpoint needs but pickled weights, which can run code when they are loaded.
_DOWNLOADED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def check_exists(model: str, key: str) -> None:
    """Refuses a name that cannot be a model, before anything is built or downloaded.

    Raises:
        SpecError: naming `key`, the model's place in the spec.
    """
    if model.startswith(ZOO_PREFIX):
        if model not in ZOO_MODELS:
            raise SpecError(
                f"{key}: the zoo has no model '{model}'; it has {', '.join(ZOO_MODELS)}"
            )
    elif _is_path(model):
        folder = os.path.expanduser(model)
        if not os.path.isdir(folder):
            raise SpecError(f"{key}: there is no folder {model}; correct the path")
        if "@" in folder or "+" in folder:
            raise SpecError(
                f"{key}: {model}: mergekit takes what follows '@' or '+' for a revision or an "
                "adapter; rename the folder"
            )
        _check_files(Path(folder), f"{key}: {model}")


def zoo_folder(model: str, on_step: OnStep = lambda done, total: None) -> Path:
    """The checkpoint folder of one of ZOO_MODELS; its family is trained if it is not there yet.

    Args:
        on_step: called with the steps of training that are done, and with all of them.
    """
    name = model.removeprefix(ZOO_PREFIX)
    family = build_vlm_zoo(on_step) if name in VLM_ZOO else build_zoo(models_folder(), on_step)
    return family / name


def is_on_hub(model: str) -> bool:
    """Is it a hub id, which is the same on every machine?"""
    return not (model.startswith(ZOO_PREFIX) or _is_path(model))


def source_of(model: str) -> tuple[str, str | None]:
    """A model as transformers loads it: a folder or hub repository, and a revision of the latter.

    Example:
        >>> source_of("organisation/model@v1")
        ('organisation/model', 'v1')
    """
    if model.startswith(ZOO_PREFIX):
        return str(zoo_folder(model)), None
    if _is_path(model):
        return os.path.expanduser(model), None
    repository, _, revision = model.partition("@")
    return repository, revision or None


def load_config(model: str, key: str) -> "PretrainedConfig":
    """The model's configuration alone; no weight is downloaded.

    Raises:
        SpecError: the model does not exist, or its configuration cannot be read.
    """
    from transformers import AutoConfig

    check_exists(model, key)
    name, revision = source_of(model)
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:
        # A corrupt file, an unknown architecture and an absent repository raise alike here.
        raise SpecError(f"{key}: {_why_unreadable(model, error)}") from error


def load_tokenizer(model: str, key: str) -> Any:
    """The model's tokenizer, from its own files.

    Raises:
        SpecError: the model has no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    name, revision = source_of(model)
    cure = "name a model with its tokenizer files, such as tokenizer.json"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:
        raise SpecError(
            f"{key}: the tokenizer of {model} cannot be read: {_first_line(error)}; {cure}"
        ) from error
    # Where there are no files, some classes make a tokenizer of special tokens alone.
    if tokenizer.get_vocab().keys() <= set(tokenizer.all_special_tokens):
        raise SpecError(f"{key}: {model} has no tokenizer; {cure}")
    return tokenizer


def load_processor(model: str, key: str) -> Any:
    """A vision-language model's processor, which makes inputs of text and images.

    Raises:
        SpecError: the model has none that can be read.
    """
    from transformers import AutoProcessor

    name, revision = source_of(model)
    try:
        return AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:
        raise SpecError(
            f"{key}: the processor of {model} cannot be read: {_first_line(error)}; name a model "
            "with its processor files, such as preprocessor_config.json"
        ) from error


def local_folder(model: str) -> Path:
    """A local folder with the model's checkpoint, trained or downloaded if need be.

    Raises:
        SpecError: the model cannot be had, or has no safetensors weights.
    """
    check_exists(model, model)
    name, revision = source_of(model)
    if not is_on_hub(model):
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_DOWNLOADED))
    except Exception as error:
        raise SpecError(_why_unreadable(model, error)) from error
    _check_files(folder, model)
    return folder


def _is_path(model: str) -> bool:
    # os.path, since pathlib raises for a name that is too long.
    return model.startswith(("/", "./", "../", "~")) or os.path.isdir(model)


def _check_files(folder: Path, model: str) -> None:
    if not (folder / "config.json").is_file():
        raise SpecError(f"{model} has no config.json, so it is no checkpoint")
    if not list(folder.glob("*.safetensors")):
        raise SpecError(
            f"{model} has no *.safetensors weights; pickled ones are refused because they can run "
            "code. Convert them with save_pretrained"
        )


def _why_unreadable(model: str, error: Exception) -> str:
    if not is_on_hub(model):
        return f"{model}: its configuration cannot be read: {_first_line(error)}"
    return (
        f"'{model}' is not a local folder, not zoo:NAME, and the hub does not give it: "
        f"{_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(":") if lines else type(error).__name__
