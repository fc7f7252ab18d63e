"""Tiny vision-language models: random towers before the random text models of conftest."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from evomerge_optuna.families.vision_language.stream import WholeStream
from evomerge_optuna.models import shards
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.models.stream import write_stream
from tests.conftest import save_tiny_model

IMAGE = "<image>"
SIZE, PATCH = 8, 4  # pixels: 2 x 2 patches, each a token
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


def save_tiny_llava(
    folder: Path, seed: int, base: Path | None = None, rows: int = 0, **config: Any
) -> Path:
    """A random LLaVA whose text part is a random Llama, or with `base` that one moved a little.

    Its vocabulary has a token for images more, and so many rows after it that are no token's.
    """
    text = folder.with_name(f"{folder.name}-text")
    save_tiny_model(text, seed, base, **config)
    llama = LlamaForCausalLM.from_pretrained(text)
    tokenizer = AutoTokenizer.from_pretrained(text)
    tokenizer.add_tokens([AddedToken(IMAGE, special=True, normalized=False)])
    torch.manual_seed(seed)
    llama.resize_token_embeddings(len(tokenizer) + rows)
    vision = CLIPVisionConfig(
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=PATCH,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=llama.config,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
            image_seq_length=(SIZE // PATCH) ** 2,
            tie_word_embeddings=llama.config.tie_word_embeddings,
        )
    )
    model.model.language_model.load_state_dict(llama.model.state_dict())
    model.lm_head.load_state_dict(llama.lm_head.state_dict())
    model.to(llama.dtype).save_pretrained(folder)
    save_processor(folder, tokenizer)
    return folder


def save_processor(folder: Path, tokenizer: Any) -> None:
    size = {"height": SIZE, "width": SIZE}
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        tensors |= load_file(file)
    return tensors


def is_of_the_text(name: str) -> bool:
    """Of a saved LLaVA."""
    return name.startswith("language_model.")


@dataclass(frozen=True)
class FolderStream:
    """A checkpoint on disk as a stream."""

    folder: Path

    @property
    def structure(self) -> str:
        return str(self.folder)

    def __iter__(self) -> Iterator[NamedTensor]:
        return shards.read_tensors(self.folder)

    def digest(self) -> str:
        return digest_files(self.folder)

    def write_files_beside_weights(self, folder: Path) -> None:
        for file in self.folder.iterdir():
            if ".safetensors" not in file.name:
                shutil.copy(file, folder)


def write_whole(host: Path, text: Path, out: Path) -> str:
    """Writes the host with another text part into a new folder."""
    out.mkdir()
    return write_stream(WholeStream(str(host), FolderStream(text)), out)
