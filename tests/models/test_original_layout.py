"""Pipelines in the layout of their authors: the names that web user interfaces look for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.original_layout import in_original_layout
from tests.original_layout import sd_pipeline, sdxl_pipeline
from tests.pipelines import save_pipeline, unet

# Some of the names in v1-5-pruned.safetensors and sd_xl_base_1.0.safetensors, where counting is
# easily one off.
SD = """
model.diffusion_model.input_blocks.0.0.weight
model.diffusion_model.input_blocks.3.0.op.weight
model.diffusion_model.input_blocks.4.0.skip_connection.weight
model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight
model.diffusion_model.input_blocks.11.0.out_layers.3.bias
model.diffusion_model.middle_block.1.proj_in.weight
model.diffusion_model.middle_block.2.emb_layers.1.weight
model.diffusion_model.output_blocks.2.1.conv.weight
model.diffusion_model.output_blocks.5.2.conv.weight
model.diffusion_model.output_blocks.11.1.proj_out.weight
model.diffusion_model.time_embed.2.bias
model.diffusion_model.out.2.weight
first_stage_model.encoder.down.0.downsample.conv.weight
first_stage_model.encoder.mid.block_2.norm1.weight
first_stage_model.decoder.up.1.upsample.conv.weight
first_stage_model.decoder.up.0.block.1.conv2.weight
first_stage_model.decoder.norm_out.weight
first_stage_model.post_quant_conv.weight
cond_stage_model.transformer.text_model.embeddings.position_embedding.weight
cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.bias
cond_stage_model.transformer.text_model.final_layer_norm.weight
"""
SDXL = """
model.diffusion_model.label_emb.0.2.weight
model.diffusion_model.input_blocks.4.1.transformer_blocks.1.ff.net.0.proj.weight
model.diffusion_model.input_blocks.6.0.op.weight
model.diffusion_model.middle_block.1.transformer_blocks.2.attn1.to_out.0.bias
model.diffusion_model.output_blocks.2.2.conv.weight
model.diffusion_model.output_blocks.5.2.conv.weight
model.diffusion_model.output_blocks.8.0.skip_connection.weight
conditioner.embedders.0.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight
conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight
conditioner.embedders.1.model.transformer.resblocks.1.attn.out_proj.bias
conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc.weight
conditioner.embedders.1.model.positional_embedding
conditioner.embedders.1.model.token_embedding.weight
conditioner.embedders.1.model.ln_final.bias
conditioner.embedders.1.model.text_projection
"""


def sd_of_four_blocks() -> StableDiffusionPipeline:
    """With the blocks of SD 1.5, but narrow."""
    pipeline = sd_pipeline()
    pipeline.unet = type(pipeline.unet)(
        block_out_channels=(4, 8, 16, 16),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return pipeline


@pytest.mark.parametrize(
    ("pipeline", "names", "tensors"),
    [(sd_of_four_blocks, SD, 686), (sdxl_pipeline, SDXL, None)],
    ids=["sd", "sdxl"],
)
def test_names_are_those_of_the_released_files(
    pipeline: Any, names: str, tensors: int | None, tmp_path: Path
) -> None:
    made: StableDiffusionPipeline | StableDiffusionXLPipeline = pipeline()
    made.save_pretrained(tmp_path)
    found = in_original_layout(tmp_path, "it", "meta")
    assert not set(names.split()) - found.keys()
    of_unet = [name for name in found if name.startswith("model.diffusion_model.")]
    assert len(of_unet) == len(made.unet.state_dict())
    assert tensors is None or len(of_unet) == tensors
    assert found["first_stage_model.decoder.mid.attn_1.q.weight"].ndim == 4  # a convolution
    assert all(tensor.is_meta for tensor in found.values())


def test_folders_of_earlier_versions_give_the_same(tmp_path: Path) -> None:
    sdxl_pipeline().save_pretrained(tmp_path)
    names = in_original_layout(tmp_path, "it", "meta").keys()
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for ours, theirs in older.items():
        tensors = {name.replace(ours, theirs): tensor for name, tensor in tensors.items()}
    save_file(tensors, file)
    second = tmp_path / "text_encoder_2" / "model.safetensors"
    ids = {"text_model.embeddings.position_ids": torch.arange(8)}
    save_file(load_file(second) | ids, second)
    assert "decoder.mid_block.attentions.0.query.weight" in load_file(file)
    assert in_original_layout(tmp_path, "it", "meta").keys() == names


def of_sd2(folder: Path) -> Path:
    sd_pipeline().save_pretrained(folder)
    file = folder / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "gelu"}))
    return folder


def with_classes(folder: Path) -> Path:
    pipeline = sd_pipeline()
    pipeline.unet = unet(num_class_embeds=3)
    pipeline.save_pretrained(folder)
    return folder


def with_lists(folder: Path) -> Path:
    pipeline = sd_pipeline()
    pipeline.unet = unet(layers_per_block=(1, 2))
    pipeline.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (save_pipeline, r"^it: vae is of class AutoencoderTiny, which .* use the folder"),
        (of_sd2, r"text_encoder is of class CLIPTextModel with hidden_act gelu, which"),
        (with_classes, r"unet has a tensor \.\.\.class_embedding\.weight, for which"),
        (with_lists, r"unet has blocks of different lengths, for which"),
    ],
)
def test_a_pipeline_that_such_a_file_does_not_hold_is_refused(
    make: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=said):
        in_original_layout(make(tmp_path), "it", "meta")


def test_a_pipeline_of_another_class_is_refused(pipelines: Path) -> None:
    with pytest.raises(SpecError, match=r"a StableDiffusion3Pipeline is not .*XLPipeline are"):
        in_original_layout(pipelines / "dit", "it", "meta")
