"""Pipelines of diffusers on disk: a folder with an index, and a folder for each component."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.shards import DIFFUSERS_STEM, STEM, weight_files

PIPELINE = "diffusers"  # the kind of all pipelines, whatever is in them
PIPELINE_INDEX = "model_index.json"
DENOISERS = ("unet", "transformer")  # the component that turns noise into a picture
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # by a pipeline that draws


def require_diffusers(where: str) -> None:
    """Refuses to go on without diffusers.

    Raises:
        SpecError: beginning with `where`, a pipeline: it is not installed.
    """
    if find_spec("diffusers") is None:
        raise SpecError(
            f"{where}: diffusers is not installed, which reads such models; "
            "pip install 'evomerge-optuna[images]'"
        )


def is_pipeline(folder: Path) -> bool:
    """Is it the folder of a pipeline?"""
    return (folder / PIPELINE_INDEX).is_file()


def pipeline_index(folder: Path) -> dict[str, Any]:
    """What the index of a pipeline says: its class, and the library and class of each component.

    Raises:
        SpecError: it cannot be read.
    """
    file = folder / PIPELINE_INDEX
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return dict(found)
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(f"{file} cannot be read; take another copy of the model") from error


def component_names(folder: Path) -> list[str]:
    """The components of a pipeline, in the order of the index."""
    return [
        name
        for name, what in pipeline_index(folder).items()
        if not name.startswith("_") and isinstance(what, list) and what[1] is not None
    ]


def component_folders(folder: Path) -> dict[str, Path]:
    """The folders of a pipeline's components by name; some, as a guidance, may have none."""
    return {n: folder / n for n in component_names(folder) if (folder / n).is_dir()}


def checkpoint_folders(folder: Path) -> list[Path]:
    """The folders in which a model has weights: its own, or those of a pipeline's components."""
    if not is_pipeline(folder):
        return [folder]
    return [place for place in component_folders(folder).values() if weight_files(place)]


def single_name(component: Path) -> str:
    """What the one weight file of a component is called, by the library that the model is of."""
    stem = STEM if component.name.startswith("text_encoder") else DIFFUSERS_STEM
    return f"{stem}.safetensors"


def denoiser_of(index: Mapping[str, Any], where: str) -> str:
    """The component of a pipeline that is merged.

    Args:
        index: of the pipeline.
        where: begins the message.

    Raises:
        SpecError: it has none.
    """
    for name in DENOISERS:
        what = index.get(name)
        if isinstance(what, list | tuple) and what[1] is not None:
            return name
    raise SpecError(
        f"{where}: a {index.get('_class_name', 'pipeline')} has none of the components "
        f"{' and '.join(DENOISERS)}, of which one is merged"
    )


def denoiser_files(folder: Path) -> list[Path]:
    """The weight files of a pipeline's denoiser.

    Raises:
        SpecError: it has none.
    """
    return weight_files(folder / denoiser_of(pipeline_index(folder), str(folder)))


def without_unused(index: Mapping[str, Any]) -> dict[str, Any]:
    """The components that a pipeline has not, or draws without, each as None, for diffusers."""
    absent = [name for name, what in index.items() if what == [None, None]]
    return {name: None for name in (*_UNUSED, *absent) if name in index}


def check_pipeline(folder: Path, where: str) -> None:
    """Refuses a pipeline of which a component that draws has no safetensors weights.

    Raises:
        SpecError: beginning with `where`.
    """
    denoiser = denoiser_of(pipeline_index(folder), where)
    if not (folder / denoiser / "config.json").is_file():
        raise SpecError(f"{where}: {denoiser} has no config.json, so it is no pipeline")
    for name, place in component_folders(folder).items():
        is_model = (place / "config.json").is_file() and name not in _UNUSED
        if is_model and not weight_files(place):
            raise SpecError(
                f"{where}: {name} has no weights by the name {single_name(place)}; pickled ones "
                "are refused because they can run code, and those of a variant are not read. Load "
                'it with from_pretrained(..., variant="fp16"), or whatever it has, and save it '
                "with save_pretrained"
            )


def tokenizer_folders(folder: Path) -> Sequence[Path]:
    """The folders of a pipeline with what turns a prompt into tokens."""
    return [
        place
        for name, place in component_folders(folder).items()
        if name.startswith(("tokenizer", "scheduler", "feature_extractor"))
    ]
