"""Sight: a merged text model put into a vision-language model, in memory or on disk."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.plan import mergekit_errors
from evomerge_optuna.models.catalog import load_processor, local_folder
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.ends import ends_of_model
from evomerge_optuna.models.vision import (
    is_text,
    merged_config,
    write_files,
    write_model,
)


class Sight:
    """What a vision-language model has beside its text part, held in memory.

    Args:
        vision: the model's name, as in a recipe.
        device: where it is to run.
    """

    def __init__(self, vision: str, device: str) -> None:
        self.vision = vision
        self._device = device
        self._folder = local_folder(vision)
        self._digest = vision_digest(self._folder)
        self._own_tokenizer = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)
        self._model: Any = None
        self._processor: Any = None
        self._generation_config: Any = None
        self._tokenizer: Any = None  # for which the processor was made
        self._text: Any = None  # whose parameters the model has

    def give(self, merged: Merged) -> Merged:
        """The vision-language model with a merged text model as its text part.

        It shares all parameters with the text model, and is valid until the next call.

        Raises:
            CandidateError: the merged tokenizer has no token for images.
        """
        if merged.model is self._text:
            return self._merged(merged)  # its parameters have changed in place
        text = merged.model
        try:
            with mergekit_errors(), torch.no_grad():
                if merged.tokenizer is not self._tokenizer:
                    self._read_files(text, merged.tokenizer)
                if self._model is None or self._model.dtype != text.dtype:
                    self._model = without_layers(self._folder, text.dtype, self._device)
                content = merged_config(
                    self._folder, text.config, self._own_tokenizer, merged.tokenizer
                )
                model = with_text(self._model, type(self._model.config).from_dict(content), text)
        except SpecError as error:
            raise CandidateError(f"{self.vision}: {error}") from error
        model.generation_config = self._generation_config
        self._text = text
        return self._merged(merged)

    def release(self) -> None:
        """Holds the last call's text model no longer."""
        self._model = self._text = None

    def _merged(self, merged: Merged) -> Merged:
        digest = sight_digest(merged.digest, self._digest)
        return Merged(self._model, self._processor.tokenizer, digest, self._processor)

    def _read_files(self, text: Any, tokenizer: Any) -> None:
        """As `AutoProcessor` and the others read them from what `write_checkpoint` writes."""
        with tempfile.TemporaryDirectory() as place:
            ends = ends_of_model(text)
            write_files(self._folder, text.config, tokenizer, ends, Path(place))
            self._processor = load_processor(place, self.vision)
            if (Path(place) / "generation_config.json").is_file():
                self._generation_config = GenerationConfig.from_pretrained(place)
            else:
                read = AutoConfig.from_pretrained(place, trust_remote_code=False)
                self._generation_config = GenerationConfig.from_model_config(read)
        self._tokenizer = tokenizer


def write_with_sight(vision: str, text: Path, text_digest: str, folder: Path) -> str:
    """Writes a vision-language model with a text checkpoint as its text part; returns its digest.

    Raises:
        CandidateError: the tokenizer of the text part has no token for images.
        OSError: a file cannot be read or written.
    """
    try:
        with mergekit_errors(folder):
            write_model(local_folder(vision), text, folder)
    except SpecError as error:
        raise CandidateError(f"{vision}: {error}") from error
    return sight_digest(text_digest, vision_digest(folder))


def vision_digest(folder: Path) -> str:
    """SHA-256 of a vision-language checkpoint's tensors outside of its text part."""
    return digest_files(folder, lambda name: not is_text(name))


def sight_digest(text: str, vision: str) -> str:
    """SHA-256 over the digests of both parts."""
    return hashlib.sha256(f"{text}{vision}".encode()).hexdigest()


def without_layers(folder: Path, dtype: torch.dtype, device: str) -> Any:
    """A vision-language model whose decoder has no layers: they would only be replaced."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    text = config.text_config
    for name, value in text.to_dict().items():
        if isinstance(value, list) and len(value) == text.num_hidden_layers:
            setattr(text, name, [])
    text.num_hidden_layers = 0
    architecture = getattr(transformers, config.architectures[0])
    model = architecture.from_pretrained(folder, config=config, dtype=dtype, use_safetensors=True)
    return model.to(device).eval()


def with_text(model: Any, config: Any, text: Any) -> Any:
    """The model, changed: its decoder has the parameters of a causal language model, and its head.

    Args:
        config: of the whole model, as deep as the text model.
        text: of the same architecture, or of the plain one that its decoder extends.
    """
    before = model.model.language_model
    config._attn_implementation = model.config._attn_implementation
    config.text_config._attn_implementation = before.config._attn_implementation
    with torch.device("meta"):
        decoder = type(before)(config.text_config).eval()
    for name, parameter in text.get_submodule("model").named_parameters(remove_duplicate=False):
        place, _, leaf = name.rpartition(".")
        decoder.get_submodule(place)._parameters[leaf] = parameter
    for name, buffer in before.named_buffers():
        place, _, leaf = name.rpartition(".")
        decoder.get_submodule(place)._buffers[leaf] = buffer
    # Gemma 3 has other frequencies for each kind of layer, so that without any it has none.
    decoder.rotary_emb = type(decoder.rotary_emb)(config.text_config).to(text.device)
    for layer, step in zip(decoder.layers, text.get_submodule("model").layers, strict=True):
        layer._forward_pre_hooks = step._forward_pre_hooks  # the scales of a stack
    model.model.language_model = decoder
    model.lm_head = text.get_output_embeddings()
    model.config = model.model.config = config
    return model
