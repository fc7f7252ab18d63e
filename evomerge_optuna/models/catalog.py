"""Where a model comes from: a hub id with or without `@REVISION`, a local folder, `zoo:NAME`.

Each with or without `+ADAPTER`, an adapter's hub id or local folder, as mergekit writes it.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.derived import check_path
from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.adapted import merged_folder
from evomerge_optuna.models.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    check_adapter_files,
    config_with_adapter,
    has_tokenizer,
    split_adapter,
)
from evomerge_optuna.models.files import check_index
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES, Fingerprint, fingerprint
from evomerge_optuna.models.shards import weight_files
from evomerge_optuna.zoo.language import ZOO, OnStep, build_zoo
from evomerge_optuna.zoo.vision import VLM_ZOO, build_vlm_zoo

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ZOO_PREFIX = "zoo:"
ZOO_MODELS = tuple(ZOO_PREFIX + name for name in (*ZOO, *VLM_ZOO))

# Everything a checkpoint needs but pickled weights, which can run code when they are loaded.
_DOWNLOADED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_TWICE = "consolidated*"  # the same weights again, for other programs


def check_exists(model: str, key: str) -> None:
    """Refuses a name that cannot be a model, before anything is built or downloaded.

    Raises:
        SpecError: naming `key`, the model's place in the spec.
    """
    if "+" in model and os.path.isdir(os.path.expanduser(model)):
        raise SpecError(
            f"{key}: {model}: what follows '+' is the name of an adapter; rename the folder"
        )
    base, adapter = split_adapter(model)
    if base.startswith(ZOO_PREFIX):
        if base not in ZOO_MODELS:
            raise SpecError(f"{key}: the zoo has no model '{base}'; it has {', '.join(ZOO_MODELS)}")
    elif _is_path(base):
        _check_files(_existing_folder(base, key), f"{key}: {base}")
    if adapter is None:
        return
    if not base or not adapter or "+" in adapter:
        raise SpecError(f"{key}: {model}: write a model and one adapter, as MODEL+ADAPTER")
    if _is_path(adapter):
        check_adapter_files(_existing_folder(adapter, key), f"{key}: {adapter}")


def adapted_config(model: str, config: "PretrainedConfig", key: str) -> "PretrainedConfig":
    """The configuration of a model with its adapter, if it has one, from that of the model alone.

    Raises:
        SpecError: naming `key`: the adapter does not fit; see `config_with_adapter`.
    """
    _, adapter = split_adapter(model)
    if adapter is None:
        return config
    return config_with_adapter(config, _adapter_folder(adapter), f"{key}: {adapter}")


def zoo_folder(model: str, on_step: OnStep = lambda done, total: None) -> Path:
    """The checkpoint folder of one of ZOO_MODELS; its family is trained if it is not there yet.

    Of one with an adapter its base's.

    Args:
        on_step: called with the steps of training that are done, and with all of them.
    """
    name = split_adapter(model)[0].removeprefix(ZOO_PREFIX)
    family = build_vlm_zoo(on_step) if name in VLM_ZOO else build_zoo(on_step)
    return family / name


def is_on_hub(model: str) -> bool:
    """Is it a hub id, which is the same on every machine?"""
    return not (model.startswith(ZOO_PREFIX) or _is_path(model))


def source_of(model: str) -> tuple[str, str | None]:
    """A model as transformers loads it: a folder or hub repository, and a revision of the latter.

    Of one with an adapter its base.

    Example:
        >>> source_of("organisation/model@v1+organisation/adapter")
        ('organisation/model', 'v1')
    """
    model, _ = split_adapter(model)
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
    """The model's tokenizer, from its own files; of one with an adapter the adapter's, if any.

    Raises:
        SpecError: the model has no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    name, revision = source_of(model)
    _, adapter = split_adapter(model)
    if adapter is not None and has_tokenizer(folder := _adapter_folder(adapter)):
        name, revision = str(folder), None
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
    """A local folder with the model's checkpoint: trained, downloaded or merged if need be.

    Raises:
        SpecError: the model cannot be had, has no safetensors weights, or its adapter does not fit.
    """
    check_exists(model, model)
    base, adapter = split_adapter(model)
    if adapter is None:
        return _base_folder(base)
    return merged_folder(_base_folder(base), _adapter_folder(adapter), model)


def model_fingerprint(model: str) -> Fingerprint:
    """SHA-256 of the model's files, and of its adapter's.

    Raises:
        SpecError: the model cannot be had.
        EvomergeError: a file cannot be read.
    """
    check_exists(model, model)
    base, adapter = split_adapter(model)
    return fingerprint(_base_folder(base), None if adapter is None else _adapter_folder(adapter))


def mergekit_name(model: str) -> str:
    """The model as plain mergekit finds it, which knows hub ids, but neither the zoo nor `~`."""
    base, adapter = split_adapter(model)
    name = base if is_on_hub(base) else str(_base_folder(base))
    if adapter is None:
        return name
    return f"{name}+{adapter if is_on_hub(adapter) else _adapter_folder(adapter)}"


def _base_folder(model: str) -> Path:
    name, revision = source_of(model)
    if not is_on_hub(model):
        return Path(name)
    folder = _downloaded(model, name, revision, _DOWNLOADED)
    _check_files(folder, model)
    return folder


def _adapter_folder(adapter: str) -> Path:
    if _is_path(adapter):
        return Path(os.path.expanduser(adapter))
    name, revision = source_of(adapter)
    folder = _downloaded(
        adapter, name, revision, [ADAPTER_CONFIG, ADAPTER_WEIGHTS, *TOKENIZER_FILES]
    )
    check_adapter_files(folder, adapter)
    return folder


def _downloaded(model: str, name: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(name, revision=revision, allow_patterns=files, ignore_patterns=_TWICE)
        )
    except Exception as error:
        raise SpecError(_why_unreadable(model, error)) from error
    check_path(folder, "HF_HOME")
    return folder


def _existing_folder(path: str, key: str) -> Path:
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        raise SpecError(f"{key}: there is no folder {path}; correct the path")
    if "@" in folder:
        raise SpecError(
            f"{key}: {path}: mergekit takes what follows '@' for a revision; rename the folder"
        )
    return Path(folder)


def _is_path(model: str) -> bool:
    # os.path, since pathlib raises for a name that is too long.
    return model.startswith(("/", "./", "../", "~")) or os.path.isdir(model)


def _check_files(folder: Path, model: str) -> None:
    if not (folder / "config.json").is_file():
        raise SpecError(f"{model} has no config.json, so it is no checkpoint")
    if not weight_files(folder):
        raise SpecError(
            f"{model} has no *.safetensors weights by transformers' names; pickled ones are "
            "refused because they can run code. Convert them with save_pretrained"
        )
    check_index(folder, model)


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
