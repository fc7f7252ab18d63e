"""The merged part of a pipeline: its denoiser, and its text encoders where they are asked for.

It is a checkpoint of its own, made of links to the pipeline's files, so that it is merged as any
checkpoint is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.fingerprint import fingerprint
from evomerge_optuna.models.headers import Header, component_headers_on_hub, headers_in
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.pipeline_part import (
    components_on_meta,
    config_of_folders,
    named,
    part_config,
)
from evomerge_optuna.models.pipelines import (
    component_folders,
    denoiser_of,
    pipeline_index,
    require_diffusers,
)
from evomerge_optuna.models.shards import (
    INDEX,
    read_tensors,
    tensor_names,
    weight_files,
    write_tensors,
)
from evomerge_optuna.models.transformers_internals import names_in_memory

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def merged_components(folder: Path, components: Sequence[str], where: str) -> list[str]:
    """The components of a pipeline that are merged, the denoiser first.

    Args:
        folder: of the pipeline, or of its small files.
        components: those that a spec names.
        where: the model's place in the spec, which begins messages.

    Raises:
        SpecError: it has no denoiser, or no such component.
    """
    index = pipeline_index(folder)
    denoiser = denoiser_of(index, where)
    known = [
        name
        for name, place in component_folders(folder).items()
        if name.startswith("text_encoder") and (place / "config.json").is_file()
    ]
    for name in components:
        if name not in (denoiser, *known):
            can = ", ".join([denoiser, *known])
            raise SpecError(
                f"merge.components: {where} has no '{name}' that can be merged; it has {can}"
            )
    return [denoiser, *(name for name in dict.fromkeys(components) if name != denoiser)]


def part_config_of(model: OpenedModel, components: Sequence[str]) -> "PretrainedConfig":
    """The configuration of a pipeline's merged part; no weight is read.

    Raises:
        SpecError: naming the model's key: diffusers has no such model.
    """
    folder = model.small_files
    where = f"{model.key} ({model.name})"
    require_diffusers(where)
    parts = merged_components(folder, components, where)
    try:
        return config_of_folders({name: folder / name for name in parts})
    except Exception as error:  # every class has its own demands on a configuration
        raise SpecError(
            f"{model.key}: {model.name}: its {parts[0]} is no model that diffusers knows: "
            + one_line(error)
        ) from error


def part_headers(model: OpenedModel, components: Sequence[str]) -> dict[str, Header] | None:
    """Every tensor of the merged part; None where the hub does not list them."""
    folder, where = model.small_files, f"{model.key} ({model.name})"
    parts = merged_components(folder, components, where)
    place, revision = model.source.location(model.name)
    found: dict[str, Header] = {}
    for part in parts:
        if model.is_on_hub:
            own = component_headers_on_hub(place, revision, folder / part, where)
            if own is None:
                return None
        else:
            own = headers_in(folder / part, where)
        found |= {new: own[name] for name, new in _names_in_part(folder, part, parts, own).items()}
    return found


def kept_headers(model: OpenedModel, components: Sequence[str]) -> Mapping[str, Header]:
    """Every tensor of the components that are not merged, of a pipeline on this machine."""
    if model.is_on_hub:
        return {}
    folder, where = model.small_files, f"{model.key} ({model.name})"
    parts = merged_components(folder, components, where)
    return {
        f"{name}.{tensor}": header
        for name, place in component_folders(folder).items()
        if name not in parts
        for tensor, header in headers_in(place, where).items()
    }


def part_folder(folder: Path, components: Sequence[str] = ()) -> Path:
    """The folder with the merged part of a pipeline, written once and kept.

    Raises:
        SpecError: see `merged_components`.
    """
    part_config()  # AutoConfig is to know it
    parts = merged_components(folder, components, str(folder))
    found = fingerprint(folder)
    whole = f"{folder.resolve()} {found.config} {found.weights} {parts}"
    key = hashlib.sha256(whole.encode()).hexdigest()[:32]
    return derived_folder("part", key, lambda place: _write_part(folder, parts, place))


def _write_part(pipeline: Path, parts: Sequence[str], folder: Path) -> None:
    config_of_folders({name: pipeline / name for name in parts}).save_pretrained(folder)
    places: dict[str, str] = {}
    for file in weight_files(pipeline / parts[0]):
        link = folder / f"{parts[0]}-{file.name}"
        link.symlink_to(file.resolve())
        places |= dict.fromkeys(_names_in(file), link.name)
    for part in parts[1:]:  # small, and renamed
        names = _names_in_part(pipeline, part, parts, tensor_names(pipeline / part))
        write_tensors(folder, read_tensors(pipeline / part, names.get), most=2**63, stem=part)
        places |= dict.fromkeys(names.values(), f"{part}.safetensors")
    index = {"metadata": {}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _names_in_part(
    pipeline: Path, component: str, parts: Sequence[str], names: Iterable[str]
) -> dict[str, str]:
    """By the names of a component's tensors in its files those that they have in the part.

    transformers renames those of text encoders, and leaves out some that older versions wrote.
    """
    if component == parts[0]:
        return {name: name for name in names}
    config = config_of_folders({name: pipeline / name for name in (parts[0], component)})
    encoder: Any = components_on_meta(config)[component]
    in_memory = names_in_memory(encoder, names)
    return {name: named(component, new, parts[0]) for name, new in in_memory.items()}


def _names_in(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return list(tensors.keys())
