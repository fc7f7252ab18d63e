"""A pipeline with a merged part, on disk: the host's files, but for what is merged."""

import shutil
from itertools import groupby
from pathlib import Path

from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.pipeline_part import component_of
from evomerge_optuna.models.pipelines import (
    PIPELINE_INDEX,
    component_folders,
    denoiser_of,
    pipeline_index,
)
from evomerge_optuna.models.shards import DIFFUSERS_STEM, STEM, write_tensors
from evomerge_optuna.models.stream import Stream


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
    written: set[str] = set()
    for component, tensors in groupby(merged, key=lambda item: component_of(item[0], names)[0]):
        assert component not in written, "a component's tensors come together"
        written.add(component)
        (folder / component).mkdir()
        stem = DIFFUSERS_STEM if component == denoiser else STEM
        own = ((component_of(name, names)[1], tensor) for name, tensor in tensors)
        write_tensors(folder / component, own, stem=stem)
    for component, place in known.items():
        weights = ("*.safetensors*", "*.bin*") if component in written else ()
        ignored = shutil.ignore_patterns(*weights)
        shutil.copytree(place, folder / component, ignore=ignored, dirs_exist_ok=True)
    shutil.copy(source / PIPELINE_INDEX, folder)
    return merged.digest()
