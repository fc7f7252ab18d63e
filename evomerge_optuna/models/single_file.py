"""Checkpoints of one file, in the layout of a model's authors: turned into folders, and written.

diffusers' own loader reads them. It takes sizes, scheduler and tokenizer from a pipeline's small
files.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import IncompleteError, SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.files import check_types
from evomerge_optuna.models.fingerprint import sha256_of
from evomerge_optuna.models.headers import STORED, opened
from evomerge_optuna.models.original_layout import in_original_layout
from evomerge_optuna.models.pipelines import pipeline_index, require_diffusers, without_unused
from evomerge_optuna.models.shards import write_file
from evomerge_optuna.quiet import quiet

_DENOISER = "model.diffusion_model."  # how the names of its tensors begin, of whatever model
_SMALL = (".json", ".txt", ".model")


def check_single_file(file: Path, where: str) -> None:
    """Refuses what is no checkpoint of a whole pipeline; its header is read.

    Raises:
        SpecError: beginning with `where`.
    """
    require_diffusers(where)
    if not file.is_file():
        raise SpecError(f"{where} is not there; correct the path")
    types = _types(file, where)
    if not any(name.startswith(_DENOISER) for name in types):
        raise SpecError(
            f"{where}: none of its tensors is named {_DENOISER}..., so it is no checkpoint of a "
            "whole pipeline in one file; a LoRA is named in merge.after.lora, and a file of a "
            "pipeline's folder by that folder"
        )
    check_types(types, where)


def pipeline_on_hub(file: Path) -> str:
    """The hub id of the pipeline that diffusers takes such a file for."""
    from diffusers.loaders.single_file_utils import (
        fetch_diffusers_config,
        load_single_file_checkpoint,
    )

    found: dict[str, str] = fetch_diffusers_config(load_single_file_checkpoint(str(file)))
    return found["pretrained_model_name_or_path"]


def folder_of_single_file(file: Path, pipeline: Path, where: str) -> Path:
    """The folder of a pipeline with a file's weights, written once and kept.

    Args:
        pipeline: a folder with at least the small files of a pipeline of this kind.
        where: begins messages.

    Raises:
        SpecError: the file is not of this kind, or has not all components.
    """
    import diffusers

    small = _small_files(pipeline)
    lines = [diffusers.__version__, sha256_of(file)]
    lines += [f"{path.relative_to(pipeline)} {sha256_of(path)}" for path in small]
    key = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]

    def write(folder: Path) -> None:
        with _without_weights(pipeline) as bare:
            try:
                with quiet():
                    _load(file, bare, where).save_pretrained(folder)
            except SpecError:
                raise
            except Exception as error:  # every part has its own demands
                raise SpecError(
                    f"{where}: diffusers does not read it with the configuration of {pipeline}: "
                    f"{_reason(error)}; write FILE.safetensors@PIPELINE with a pipeline of its "
                    "kind, or make a folder of it with save_pretrained"
                ) from error

    return derived_folder("single", key, write)


def write_single_file(folder: Path, file: Path, where: str) -> None:
    """Writes the pipeline of a folder as one file, and loads that again.

    Args:
        where: begins messages.

    Raises:
        SpecError: it cannot be written so.
        IncompleteError: diffusers reads other tensors from the file than from the folder.
        OSError: a file cannot be read or written.
    """
    from diffusers import DiffusionPipeline

    write_file(in_original_layout(folder, where), file)
    index = pipeline_index(folder)
    with quiet(), _without_weights(folder) as bare:
        found = _digests(loaded := _load(file, bare, where))
        dtype = loaded.dtype
        del loaded  # before the other is read
        wanted = _digests(
            DiffusionPipeline.from_pretrained(
                folder, torch_dtype=dtype, use_safetensors=True, **without_unused(index)
            )
        )
    for component, digest in wanted.items():
        if found.get(component) != digest:
            raise IncompleteError(file.name, f"diffusers reads another {component} from it")


def _digests(pipeline: Any) -> dict[str, str]:
    """SHA-256 over the tensors of each component of a pipeline that has any."""
    import torch

    return {
        name: digest_tensors(own.state_dict())
        for name, own in pipeline.components.items()
        if isinstance(own, torch.nn.Module)
    }


@contextmanager
def _without_weights(pipeline: Path) -> Iterator[Path]:
    """A copy of a pipeline's small files, so that no weights of it go in unseen."""
    with TemporaryDirectory() as bare:
        for path in _small_files(pipeline):
            copy = Path(bare, path.relative_to(pipeline))
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
        yield Path(bare)


def _load(file: Path, config: Path, where: str) -> Any:
    """The pipeline of a file, in the dtype of most of its tensors."""
    import diffusers
    import torch

    index, types = pipeline_index(config), list(_types(file, where).values())
    most = max(set(types), key=types.count)
    dtype: torch.dtype = getattr(torch, {v: k for k, v in STORED.items()}.get(most, "float32"))
    kind = getattr(diffusers, index["_class_name"])
    if not hasattr(kind, "from_single_file"):
        raise SpecError(f"{where}: diffusers reads no single files of a {index['_class_name']}")
    options = {"requires_safety_checker": False} if "safety_checker" in index else {}
    return kind.from_single_file(
        str(file),
        config=str(config),
        torch_dtype=dtype,
        local_files_only=True,
        **without_unused(index),
        **options,
    )


def _types(file: Path, where: str) -> dict[str, str]:
    with opened(where, file) as tensors:
        return {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118


def _small_files(pipeline: Path) -> list[Path]:
    files = [
        *pipeline.iterdir(),
        *(f for p in pipeline.iterdir() if p.is_dir() for f in p.iterdir()),
    ]
    return sorted(f for f in files if f.is_file() and _is_small(f))


def _is_small(file: Path) -> bool:
    return file.suffix in _SMALL and not file.name.endswith(".index.json")


def _reason(error: Exception) -> str:
    if "meta tensor" in (line := first_line(error)):
        return "it lacks tensors"
    return line.partition(" If you want")[0].rstrip(".")
