"""Pipelines of Stable Diffusion as one file in the layout of its authors, for web user interfaces.

diffusers reads such files and writes none, so this is the way back of what its loader does
(`diffusers.loaders.single_file_utils`).
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.pipelines import pipeline_index
from evomerge_optuna.models.shards import read_tensors

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "dict[str, torch.Tensor]"

_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",  # as folders of SD 1.5 have it from an earlier diffusers
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_OPEN_CLIP = {
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    ".fc1.": ".c_fc.",
    ".fc2.": ".c_proj.",
    ".self_attn.": ".attn.",
    "final_layer_norm.": "ln_final.",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
}
_BLOCK = re.compile(r"(down|mid|up)_(?:block|blocks\.(\d+))\.(\w+)\.(\d+)\.(.+)")
_QKV = re.compile(r"(.*\.attn\.)([qkv])_proj\.(weight|bias)")


class _NoPlace(Exception):
    """Says what a component has that such a file cannot hold."""


def in_original_layout(folder: Path, where: str, device: str = "cpu") -> Tensors:
    """The tensors of a pipeline's folder by the names that a single file has for them.

    Args:
        where: begins messages.
        device: "meta" reads no value.

    Raises:
        SpecError: it is no pipeline of the kinds that have such files, or has a tensor more.
        OSError: a file cannot be read.
    """
    kind = pipeline_index(folder).get("_class_name")
    if kind not in _KINDS:
        raise SpecError(
            f"{where}: a {kind} is not written as a single file; {' and '.join(_KINDS)} are"
        )
    found: Tensors = {}
    for component, (prefix, wanted, rename) in _KINDS[kind].items():
        config = json.loads((folder / component / "config.json").read_text(encoding="utf-8"))
        if (why := _other_kind(config, wanted)) is not None:
            raise SpecError(
                f"{where}: {component} is {why}, which a single file of a {kind} does not hold; "
                "use the folder"
            )
        own = {name: tensor.to(device) for name, tensor in read_tensors(folder / component)}
        try:
            renamed = rename(own, config)
        except _NoPlace as error:
            raise SpecError(
                f"{where}: {component} has {error}, for which a single file of a {kind} has no "
                "place; use the folder"
            ) from error
        found |= {prefix + name: tensor.contiguous() for name, tensor in renamed.items()}
    return found


def _other_kind(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """What a component is other than wanted; None where it is as wanted."""
    named = config.get("_class_name") or next(iter(config.get("architectures") or ()), "unknown")
    found = {**config, "class": named}
    for key, value in wanted.items():
        if found.get(key) != value:
            more = "" if key == "class" else f" with {key} {found.get(key)}"
            return f"of class {named}{more}"
    return None


def _unet(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Counts the layers of all blocks through; an upsampler follows its block's attention."""
    if not isinstance(layers := config["layers_per_block"], int):
        raise _NoPlace("blocks of different lengths")
    each = layers + 1
    attending = {name.split(".attentions.")[0] for name in tensors if ".attentions." in name}

    def place(way: str, block: int, kind: str, number: int, rest: str) -> str:
        if kind == "downsamplers":
            return f"input_blocks.{(block + 1) * each}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            after = 2 if f"up_blocks.{block}" in attending else 1
            return f"output_blocks.{(block + 1) * each - 1}.{after}.{rest}"
        own = _begins(rest, _RESNET) if kind == "resnets" else rest
        if way == "mid":
            return f"middle_block.{2 * number + (kind == 'attentions')}.{own}"
        count = block * each + number
        side = f"input_blocks.{count + 1}" if way == "down" else f"output_blocks.{count}"
        return f"{side}.{int(kind == 'attentions')}.{own}"

    found = {}
    for name, tensor in tensors.items():
        if block := _BLOCK.fullmatch(name):
            way, number, kind, layer, rest = block.groups()
            found[place(way, int(number or 0), kind, int(layer), rest)] = tensor
        else:
            found[_begins(name, _UNET)] = tensor
    return found


def _vae(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Counts the blocks of the decoder from the picture on; its attention is of convolutions."""
    last = len(config["up_block_types"]) - 1

    def place(way: str, block: int, kind: str, number: int, rest: str) -> str:
        own = rest.replace("conv_shortcut", "nin_shortcut")
        if kind == "attentions":
            return f"mid.attn_1.{_begins(rest, _VAE_ATTENTION)}"
        if way == "mid":
            return f"mid.block_{number + 1}.{own}"
        where = f"down.{block}" if way == "down" else f"up.{last - block}"
        return (
            f"{where}.block.{number}.{own}" if kind == "resnets" else f"{where}.{kind[:-2]}.{own}"
        )

    found = {}
    for name, tensor in tensors.items():
        half, _, rest = name.partition(".")
        if (block := _BLOCK.fullmatch(rest)) is None:
            found[name.replace("conv_norm_out", "norm_out")] = tensor
            continue
        way, number, kind, layer, own = block.groups()
        convolved = kind == "attentions" and tensor.ndim == 2
        kept = tensor[:, :, None, None] if convolved else tensor
        found[f"{half}.{place(way, int(number or 0), kind, int(layer), own)}"] = kept
    return found


def _clip(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    return {f"text_model.{n.removeprefix('text_model.')}": t for n, t in tensors.items()}


def _open_clip(tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """OpenCLIP has queries, keys and values in one tensor, and its projection turned over."""
    import torch

    found: Tensors = {}
    joined: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        if name.endswith("position_ids"):  # no weights: 0, 1, 2 ..., in files of older transformers
            continue
        new = name.removeprefix("text_model.")
        for ours, theirs in _OPEN_CLIP.items():
            new = new.replace(ours, theirs)
        if part := _QKV.fullmatch(new):
            joined.setdefault(f"{part[1]}in_proj_{part[3]}", {})[part[2]] = tensor
        else:
            found[new] = tensor.T if new == "text_projection" else tensor
    return found | {name: torch.cat([own[k] for k in "qkv"]) for name, own in joined.items()}


def _begins(name: str, names: Mapping[str, str]) -> str:
    """A name with another beginning.

    Raises:
        _NoPlace: its beginning is none of `names`.
    """
    for ours, theirs in names.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    raise _NoPlace(f"a tensor ...{name}")


# Where the tensors of a pipeline's components go: what their names begin with, what a component
# has to be (SD 2 has an OpenCLIP for its text encoder, and a layout of its own), and how the rest
# of the names is made.
_Rename: TypeAlias = Callable[[Tensors, Mapping[str, Any]], Tensors]
_Component: TypeAlias = tuple[str, Mapping[str, Any], _Rename]
_BOTH: dict[str, _Component] = {
    "unet": ("model.diffusion_model.", {"class": "UNet2DConditionModel"}, _unet),
    "vae": ("first_stage_model.", {"class": "AutoencoderKL"}, _vae),
}
_OPENAI = {"class": "CLIPTextModel", "hidden_act": "quick_gelu"}
_LAION = {"class": "CLIPTextModelWithProjection"}
_KINDS: dict[str, dict[str, _Component]] = {
    "StableDiffusionPipeline": _BOTH
    | {"text_encoder": ("cond_stage_model.transformer.", _OPENAI, _clip)},
    "StableDiffusionXLPipeline": _BOTH
    | {
        "text_encoder": ("conditioner.embedders.0.transformer.", _OPENAI, _clip),
        "text_encoder_2": ("conditioner.embedders.1.model.", _LAION, _open_clip),
    },
}
