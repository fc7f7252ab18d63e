"""Tiny pipelines of diffusers with random weights: real classes, real files, nothing is learned."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
)

WORDS = ("<pad>", "<unk>", "<s>", "</s>", "a", "red", "blue", "circle", "square")


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    own = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=8,
        padding_side="right",
    )


def text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=16,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )


def unet(**changes: Any) -> UNet2DConditionModel:
    given: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return UNet2DConditionModel(**given | changes)


def sdxl_unet() -> UNet2DConditionModel:
    """A tiny UNet with the names and shapes of blocks that SDXL's has."""
    return unet(
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        attention_head_dim=(1, 2, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=40,
    )


def save_pipeline(
    folder: Path, denoiser: UNet2DConditionModel | None = None, seed: int = 0
) -> Path:
    """A StableDiffusionPipeline that draws pictures of 16 x 16 pixels."""
    torch.manual_seed(seed)
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(0, 1),
        num_decoder_blocks=(1, 0),
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=unet(),
        scheduler=DDIMScheduler(num_train_timesteps=100, clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def save_sd3(folder: Path, seed: int = 0) -> Path:
    """A pipeline whose denoiser is a transformer, without its third text encoder."""
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        shift_factor=0.0,
    )
    StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer_2=tokenizer(),
        text_encoder_3=None,
        tokenizer_3=None,
    ).save_pretrained(folder)
    return folder


def save_variant(of: Path, folder: Path, seed: int, part: str = "unet") -> Path:
    """The same pipeline with another denoiser, as a fine-tune has it."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(of, folder)
    file = next((folder / part).glob("*.safetensors"))
    generator = torch.Generator().manual_seed(seed)
    tensors: Mapping[str, torch.Tensor] = load_file(file)
    changed = {
        name: tensor + 0.05 * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
        for name, tensor in tensors.items()
    }
    save_file(changed, file, metadata={"format": "pt"})
    return folder
