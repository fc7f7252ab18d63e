"""A pipeline with a merged part, on disk: the host's files, but for what is merged."""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.pipeline_part import component_of, components_on_meta, config_of_folders
from evomerge_optuna.models.pipelines import (
    PIPELINE_INDEX,
    component_folders,
    denoiser_of,
    pipeline_index,
)
from evomerge_optuna.models.shards import DIFFUSERS_STEM, NamedTensor, write_tensors
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.models.transformers_internals import as_saved

if TYPE_CHECKING:
    import torch


def write_whole(host: str, merged: Stream, folder: Path) -> str:
    """Writes a host with a merged part into an empty folder, and returns the part's digest.

    Args:
        host: the host's name.

    Raises:
        CandidateError: the part cannot be made, or a weight is NaN or infinite.
        OSError: a file cannot be read or written.
    """
    source = local_folder(host)
    denoiser = denoiser_of(pipeline_index(source), host)
    known = component_folders(source)
    names = (denoiser, *(name for name in known if name != denoiser))
    encoders: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)  # small beside the denoiser

    def of_denoiser() -> Iterator[NamedTensor]:
        for name, tensor in merged:
            component, own = component_of(name, names)
            if component == denoiser:
                yield own, tensor
            else:
                encoders[component][own] = tensor

    (folder / denoiser).mkdir()
    write_tensors(folder / denoiser, of_denoiser(), stem=DIFFUSERS_STEM)
    for component, tensors in encoders.items():
        (folder / component).mkdir()
        config = config_of_folders({name: source / name for name in (denoiser, component)})
        encoder: Any = components_on_meta(config)[component]
        write_tensors(folder / component, as_saved(encoder, tensors).items())
    for component, place in known.items():
        weights = ("*.safetensors*", "*.bin*") if component in (denoiser, *encoders) else ()
        ignored = shutil.ignore_patterns(*weights)
        shutil.copytree(place, folder / component, ignore=ignored, dirs_exist_ok=True)
    shutil.copy(source / PIPELINE_INDEX, folder)
    return merged.digest()
