"""Tiny pipelines of Stable Diffusion, and their weights as one file in its authors' layout."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from evomerge_optuna.models.original_layout import in_original_layout
from tests.pipelines import sdxl_unet, text_config, tokenizer, unet


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
    pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline,
    file: Path,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes the pipeline's weights in the layout of its authors."""
    with TemporaryDirectory() as folder:
        pipeline.to(dtype).save_pretrained(folder)
        save_file(in_original_layout(Path(folder), file.name), file)
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
