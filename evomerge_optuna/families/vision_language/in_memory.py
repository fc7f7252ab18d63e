"""A vision-language model in memory that takes merged text models as its text part."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.families.vision_language.checkpoint import (
    config_of_whole,
    digest_beside_text,
    digest_of_whole,
    write_files_beside_weights,
)
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.ends import ends_of_model
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.models.transformers_internals import set_attention_like

if TYPE_CHECKING:
    from transformers import (
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )


class HostInMemory:
    """A vision-language model that keeps everything but its text part.

    Args:
        host: the model's name, as in a recipe.
        device: where it runs.
    """

    def __init__(self, host: str, device: str) -> None:
        self.name = host
        self._model: PreTrainedModel | None = None
        self._device = device
        self._folder = local_folder(host)
        self._digest = digest_beside_text(self._folder)
        self._own_tokenizer = AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)
        self._generation_config: GenerationConfig | None = None
        self._processor: ProcessorMixin | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None  # for which the processor was made
        self._text: PreTrainedModel | None = None  # whose parameters the model has

    def complete(self, text: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Puts a merged text model into the whole model.

        The two share the text model's parameters until the next call.

        Raises:
            CandidateError: the merged tokenizer has no token for images.
        """
        if text is self._text:
            return  # its parameters have changed in place
        self._text = None  # an error below may leave the parameters of both models
        try:
            with torch.no_grad():
                if tokenizer is not self._tokenizer:
                    self._read_files(text, tokenizer)
                model = self._model
                if model is None or model.dtype != text.dtype:
                    model = without_layers(self._folder, text.dtype, self._device)
                content = config_of_whole(self._folder, text.config, self._own_tokenizer, tokenizer)
                self._model = with_text(model, type(model.config).from_dict(content), text)
        except SpecError as error:
            raise CandidateError(f"{self.name}: {error}") from error
        self._model.generation_config = self._generation_config
        self._text = text

    @property
    def model(self) -> "PreTrainedModel":
        assert self._model is not None  # since the first `complete`
        return self._model

    @property
    def reader(self) -> Reader:
        assert self._processor is not None  # since the first `complete`
        return Reader(self._processor.tokenizer, positions(self.model.config), self._processor)

    def digest(self, text_digest: str) -> str:
        """SHA-256 of the whole model's tensors, from that of its text part's."""
        return digest_of_whole(text_digest, self._digest)

    def release(self) -> None:
        """Frees the last text model."""
        self._model = self._text = None

    def _read_files(self, text: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Reads processor and generation settings as they are once the checkpoint is written."""
        with tempfile.TemporaryDirectory() as place:
            ends = ends_of_model(text)
            write_files_beside_weights(self._folder, text.config, tokenizer, ends, Path(place))
            self._processor = OpenedModel(place, self.name).processor
            if (Path(place) / "generation_config.json").is_file():
                self._generation_config = GenerationConfig.from_pretrained(place)
            else:
                read = AutoConfig.from_pretrained(place, trust_remote_code=False)
                self._generation_config = GenerationConfig.from_model_config(read)
        self._tokenizer = tokenizer


def without_layers(folder: Path, dtype: torch.dtype, device: str) -> "PreTrainedModel":
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


def with_text(
    model: "PreTrainedModel", config: "PretrainedConfig", text: "PreTrainedModel"
) -> "PreTrainedModel":
    """The model, changed: its decoder has the parameters of a causal language model, and its head.

    Args:
        config: of the whole model, as deep as the text model.
        text: of the same architecture, or of the plain one that its decoder extends.
    """
    before = model.model.language_model
    set_attention_like(config, model.config)
    set_attention_like(config.text_config, before.config)
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
