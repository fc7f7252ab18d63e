"""Where a model comes from: a hub id, a local folder, or `zoo:NAME`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.home import models_folder
from evomerge_optuna.models.zoo import ZOO, zoo_path

if TYPE_CHECKING:
    from transformers import PretrainedConfig

ZOO_PREFIX = "zoo:"

# Everything a checkpoint needs but pickled weights, which can run code when they are loaded.
_DOWNLOADED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def check_exists(model: str, key: str) -> None:
    """Refuses a name that cannot be a model, before anything is built or downloaded.

    Raises:
        SpecError: naming `key`, the model's place in the spec.
    """
    if model.startswith(ZOO_PREFIX):
        if model.removeprefix(ZOO_PREFIX) not in ZOO:
            raise SpecError(
                f"{key}: the zoo has no model '{model}'; it has "
                + ", ".join(ZOO_PREFIX + name for name in ZOO)
            )
    elif _is_path(model):
        folder = Path(model)
        if not folder.is_dir():
            raise SpecError(f"{key}: there is no folder {model}; correct the path")
        if not (folder / "config.json").is_file():
            raise SpecError(f"{key}: {model} has no config.json, so it is no checkpoint")
        if not list(folder.glob("*.safetensors")):
            raise SpecError(
                f"{key}: {model} has no *.safetensors weights; pickled ones are refused because "
                "they can run code. Convert them with save_pretrained"
            )


def load_config(model: str, key: str) -> "PretrainedConfig":
    """The model's configuration alone; no weight is downloaded.

    Raises:
        SpecError: the model does not exist, or its configuration cannot be read.
    """
    from transformers import AutoConfig

    check_exists(model, key)
    try:
        return AutoConfig.from_pretrained(_path_or_id(model), trust_remote_code=False)
    except Exception as error:
        # A corrupt file, an unknown architecture and an absent repository raise alike here.
        raise SpecError(f"{key}: {_why_unreadable(model, error)}") from error


def load_tokenizer(model: str) -> Any:
    """The model's tokenizer, from its own files.

    Raises:
        SpecError: the model has no tokenizer that can be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(_path_or_id(model), trust_remote_code=False)
    except Exception as error:
        raise SpecError(f"{model}: its tokenizer cannot be read: {_first_line(error)}") from error


def local_folder(model: str) -> Path:
    """A local folder with the model's checkpoint, trained or downloaded if need be.

    Raises:
        SpecError: the model cannot be had, or has no safetensors weights.
    """
    check_exists(model, model)
    if model.startswith(ZOO_PREFIX) or _is_path(model):
        return Path(_path_or_id(model))
    from huggingface_hub import snapshot_download

    repository, _, revision = model.partition("@")
    try:
        folder = Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=_DOWNLOADED)
        )
    except Exception as error:
        raise SpecError(_why_unreadable(model, error)) from error
    check_exists(str(folder), model)
    return folder


def _is_path(model: str) -> bool:
    return model.startswith(("/", "./", "../", "~")) or Path(model).is_dir()


def _path_or_id(model: str) -> str:
    if model.startswith(ZOO_PREFIX):
        return str(zoo_path(model.removeprefix(ZOO_PREFIX), models_folder()))
    return str(Path(model).expanduser()) if _is_path(model) else model


def _why_unreadable(model: str, error: Exception) -> str:
    if _is_path(model) or model.startswith(ZOO_PREFIX):
        return f"{model}: its configuration cannot be read: {_first_line(error)}"
    return (
        f"'{model}' is not a local folder, not zoo:NAME, and the hub does not give it: "
        f"{_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
