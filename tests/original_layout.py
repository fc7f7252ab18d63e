"""Pipelines of Stable Diffusion as one file in the layout of its authors.

It is the way back of what the loader of diffusers does, so that a test has such files.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.pipelines import sdxl_unet, text_config, tokenizer, unet

_UNET = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
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
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def sd_pipeline(seed: int = 0) -> StableDiffusionPipeline:
    """A tiny pipeline with the kinds of parts that SD 1.5 has."""
    torch.manual_seed(seed)
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl_pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """A tiny pipeline with the kinds of parts that SDXL has."""
    torch.manual_seed(seed)
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(4)),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(12)),
        tokenizer_2=tokenizer(),
        unet=sdxl_unet(),
        scheduler=_scheduler(),
    )


def save_single_file(
    pipeline: StableDiffusionPipeline, file: Path, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes the pipeline's weights as a file of SD 1.5 has them."""
    encoder = _clip(pipeline.text_encoder, "cond_stage_model.transformer.")
    return _save({**_unet_and_vae(pipeline), **encoder}, file, dtype)


def save_single_file_xl(pipeline: StableDiffusionXLPipeline, file: Path) -> Path:
    """Writes the pipeline's weights as a file of SDXL has them."""
    first = _clip(pipeline.text_encoder, "conditioner.embedders.0.transformer.")
    second = _open_clip(pipeline.text_encoder_2, "conditioner.embedders.1.model.")
    return _save({**_unet_and_vae(pipeline), **first, **second}, file, torch.float32)


def _save(tensors: Mapping[str, torch.Tensor], file: Path, dtype: torch.dtype) -> Path:
    save_file({n: t.to(dtype).contiguous().clone() for n, t in tensors.items()}, file)
    return file


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )


def _scheduler() -> DDIMScheduler:
    return DDIMScheduler(num_train_timesteps=100, clip_sample=False, steps_offset=1)


def _text_config(width: int) -> CLIPTextConfig:
    config = text_config()
    config.update({"hidden_size": width, "intermediate_size": 2 * width})
    return config


def _unet_and_vae(pipeline: Any) -> dict[str, torch.Tensor]:
    own, last = pipeline.unet, len(pipeline.vae.config.up_block_types) - 1
    layers = own.config.layers_per_block
    found: dict[str, torch.Tensor] = {}
    for name, tensor in own.state_dict().items():
        found[f"model.diffusion_model.{_of_unet(name, own, layers)}"] = tensor
    for name, tensor in pipeline.vae.state_dict().items():
        flat = ".attentions." in name and name.endswith("weight") and "group_norm" not in name
        kept = tensor[:, :, None, None] if flat else tensor
        found[f"first_stage_model.{_of_vae(name, last)}"] = kept
    return found


def _clip(encoder: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    named = {f"text_model.{n.removeprefix('text_model.')}": t for n, t in _state(encoder)}
    return {f"{prefix}{name}": tensor for name, tensor in named.items()}


def _open_clip(encoder: torch.nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    """OpenCLIP has queries, keys and values in one tensor, and its projection turned over."""
    found: dict[str, torch.Tensor] = {}
    joined: dict[str, list[torch.Tensor]] = {}
    for name, tensor in _state(encoder):
        new = name.removeprefix("text_model.")
        for ours, theirs in _OPEN_CLIP.items():
            new = new.replace(ours, theirs)
        if part := re.fullmatch(r"(.*\.attn\.)[qkv]_proj\.(weight|bias)", new):
            joined.setdefault(f"{prefix}{part[1]}in_proj_{part[2]}", []).append(tensor)
        else:
            found[prefix + new] = tensor.T if new == "text_projection" else tensor
    return found | {name: torch.cat(parts) for name, parts in joined.items()}


def _state(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """By name, with queries before keys before values."""
    rank = {"q_proj": 0, "k_proj": 1, "v_proj": 2}
    whole = list(module.state_dict().items())
    return sorted(whole, key=lambda one: next((r for n, r in rank.items() if n in one[0]), 3))


def _of_unet(name: str, own: UNet2DConditionModel, layers: int) -> str:
    for new, old in _UNET.items():
        if name.startswith(new):
            return name.replace(new, old)
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.", name):
        place = 2 * int(found[2]) + (found[1] == "attentions")
        return f"middle_block.{place}.{_renamed(name[found.end() :], found[1], _RESNET)}"
    found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.", name)
    assert found is not None, name
    block, kind, place, rest = int(found[2]), found[3], int(found[4]), name[found.end() :]
    if found[1] == "down":
        first = 1 + block * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers}.0.op.{rest.removeprefix('conv.')}"
        where = f"input_blocks.{first + place}"
    else:
        first = block * (layers + 1)
        if kind == "upsamplers":
            after = 2 if hasattr(own.up_blocks[block], "attentions") else 1
            return f"output_blocks.{first + layers}.{after}.{rest}"
        where = f"output_blocks.{first + place}"
    return f"{where}.{int(kind == 'attentions')}.{_renamed(rest, kind, _RESNET)}"


def _of_vae(name: str, last: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if found := re.match(r"(\w+)\.mid_block\.attentions\.0\.", name):
        rest = _renamed(name[found.end() :], "resnets", _ATTENTION)
        return f"{found[1]}.mid.attn_1.{rest}"
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets\.", lambda m: f"up.{last - int(m[1])}.block.", name)
    return re.sub(
        r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name
    )


def _renamed(rest: str, kind: str, names: Mapping[str, str]) -> str:
    if kind == "resnets":
        for new, old in names.items():
            if rest.startswith(f"{new}."):
                return rest.replace(new, old, 1)
    return rest
