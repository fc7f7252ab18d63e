"""The parts of a tiny StableDiffusionPipeline, untrained."""

from typing import TYPE_CHECKING

from evomerge_optuna.zoo.images.scenes import SIZE, words

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

TOKENS = 10  # of a prompt, with its ends
_HIDDEN = 64
# CLIPTextModel pools where the end of text stands. Where that has id 2, it takes the model for one
# of an old kind and pools elsewhere.
_SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")


def make_tokenizer() -> "PreTrainedTokenizerFast":
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*_SPECIAL, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(end, vocabulary[end]) for end in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=TOKENS,
        padding_side="right",
    )


def make_processor() -> "CLIPProcessor":
    """What CLIP reads texts and pictures with: pictures of SIZE pixels as values in [-1, 1]."""
    from transformers import CLIPImageProcessorPil, CLIPProcessor

    square = {"height": SIZE, "width": SIZE}
    return CLIPProcessor(
        CLIPImageProcessorPil(
            size=square,
            crop_size=square,
            do_center_crop=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        ),
        make_tokenizer(),
    )


def make_clip(tokenizer: "PreTrainedTokenizerFast") -> "CLIPModel":
    """Texts and pictures: its text part is the pipeline's text encoder, the whole of it a judge."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    each = {
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "projection_dim": _HIDDEN,
    }
    text = CLIPTextConfig(
        **each,
        vocab_size=len(tokenizer),
        max_position_embeddings=TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vision = CLIPVisionConfig(**each, image_size=SIZE, patch_size=8)
    return CLIPModel(
        CLIPConfig(
            text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=_HIDDEN
        )
    )


def make_vae() -> "AutoencoderTiny":
    """Pictures of SIZE pixels to latents of a quarter of it, 4 channels, and back."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(0, 0, 1),
        num_decoder_blocks=(1, 1, 0),
    )


def make_unet() -> "UNet2DConditionModel":
    """Two levels, the lower one with attention to the text."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=_HIDDEN,
        attention_head_dim=16,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def make_scheduler() -> "DDIMScheduler":
    """Predicts v (Salimans and Ho 2022) down to no signal at all, with trailing steps.

    Few steps from pure noise need this (Lin et al. 2023): a model that never saw pure noise takes
    the mean of the noise for a picture.
    """
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )
