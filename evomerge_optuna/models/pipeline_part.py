"""The part of a pipeline that is merged, as a checkpoint of its own.

Its configuration is one that transformers' AutoConfig reads, so that all that merges checkpoints
merges it. The tensors of the denoiser have their own names; those of another component, as a text
encoder, begin with the component's.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import IncompleteError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

PART = "pipeline_part"  # the `model_type` of its configuration
_WAY = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}  # a UNet has them in another order
_BLOCK = re.compile(r"((?:down|mid|up|\w*transformer)_blocks?(?:\.\d+)?)\.")


@cache
def part_config() -> "type[PretrainedConfig]":
    """The class of such configurations, which AutoConfig knows from now on."""
    from transformers import AutoConfig, PretrainedConfig

    class PipelinePartConfig(PretrainedConfig):  # type: ignore[misc]
        """`parts` has the name and configuration of each merged component, the denoiser first."""

        model_type = PART

        def __init__(self, parts: Sequence[Sequence[Any]] = (), **others: Any) -> None:
            self.parts = [list(part) for part in parts]
            super().__init__(**others)

    AutoConfig.register(PART, PipelinePartConfig)
    return PipelinePartConfig


def components_on_meta(config: "PretrainedConfig") -> "dict[str, torch.nn.Module]":
    """The merged components of a part's configuration by name, on the meta device.

    Raises:
        Exception: diffusers or transformers has no such model.
    """
    import torch

    with torch.device("meta"):
        return {name: _component(content) for name, content in config.parts}


def tensors_on_meta(config: "PretrainedConfig") -> "dict[str, torch.Tensor]":
    """Every tensor of a part by its name, in the order of the components and their modules."""
    components = components_on_meta(config)
    denoiser = next(iter(components))
    return {
        named(component, name, denoiser): tensor
        for component, module in components.items()
        for name, tensor in module.state_dict().items()
    }


def named(component: str, name: str, denoiser: str) -> str:
    """What a tensor of a component is called in the part."""
    return name if component == denoiser else f"{component}.{name}"


def component_of(name: str, components: Mapping[str, Any] | tuple[str, ...]) -> tuple[str, str]:
    """The component that a tensor of a part belongs to, and the tensor's name in it.

    Args:
        name: in the part.
        components: their names, the denoiser's first.
    """
    denoiser, *others = components
    for component in others:
        if name.startswith(f"{component}."):
            return component, name.removeprefix(f"{component}.")
    return denoiser, name


def blocks_of(names: Iterable[str]) -> list[str]:
    """The blocks of a denoiser, as down_blocks.0 or transformer_blocks.3, from noise to picture."""
    found = dict.fromkeys(found[1] for name in names if (found := _BLOCK.match(name)))
    return sorted(found, key=lambda block: _WAY.get(block.partition(".")[0], 0))


def layers_of(names: list[str]) -> dict[str, int]:
    """The layer of every tensor that has one.

    The blocks of a transformer are its layers. A UNet is one layer, since its blocks are of
    different kinds and the last are fed by the first.
    """
    blocks = blocks_of(names)
    if not all("transformer_blocks" in block for block in blocks) or not blocks:
        return dict.fromkeys(names, 0)
    places = {block: place for place, block in enumerate(blocks)}
    return {name: places[found[1]] for name in names if (found := _BLOCK.match(name))}


def check_whole(config: "PretrainedConfig", shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuses tensors that are not those of a part's configuration.

    Args:
        shapes: by name, of all tensors that there are.

    Raises:
        IncompleteError: naming a tensor that is missing, unknown or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in tensors_on_meta(config).items()}
    place = "the pipeline"
    for name in sorted({*wanted, *shapes}):
        if name not in shapes:
            raise IncompleteError(place, f"has no tensor {name}, which its architecture needs")
        if name not in wanted:
            raise IncompleteError(
                place, f"has a tensor {name}, for which its architecture has no place"
            )
        if wanted[name] != shapes[name]:
            raise IncompleteError(
                place, f"has a tensor {name} of another shape than its config.json says"
            )


def _component(content: Mapping[str, Any]) -> "torch.nn.Module":
    if "_class_name" in content:
        import diffusers

        model: torch.nn.Module = getattr(diffusers, content["_class_name"]).from_config({**content})
        return model
    import transformers

    config = transformers.AutoConfig.for_model(**content)
    encoder: torch.nn.Module = getattr(transformers, content["architectures"][0])(config)
    return encoder


def config_of_folders(folders: Mapping[str, Path]) -> "PretrainedConfig":
    """The configuration of a part whose components lie in these folders, the denoiser's first.

    Raises:
        OSError, ValueError: a configuration cannot be read, or is of no model that is known.
    """
    import json

    parts = [
        (name, json.loads((folder / "config.json").read_text(encoding="utf-8")))
        for name, folder in folders.items()
    ]
    config, (denoiser, content) = part_config()(parts=parts), parts[0]
    layers = layers_of(list(components_on_meta(config)[denoiser].state_dict()))
    config.num_hidden_layers = max(layers.values()) + 1
    config.architectures = [str(content.get("_class_name"))]
    return config
