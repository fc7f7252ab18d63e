"""Models of transformers that put texts and pictures into one space: CLIP, SigLIP and their kin."""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.models.catalog import check_exists, local_folder
from evomerge_optuna.models.fingerprint import PROCESSOR_FILES, TOKENIZER_FILES, fingerprint
from evomerge_optuna.models.sources import source_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

_BATCH = 32  # texts or pictures at a time


class Embedder:
    """A model and its processor, on a device; see `embedder`."""

    def __init__(self, model: Any, processor: Any) -> None:
        self._model = model
        self._processor = processor

    @property
    def logit_scale(self) -> float:
        """By which the model multiplies cosines before it compares them."""
        return float(self._model.logit_scale.detach().exp())

    def cosines(self, texts: Sequence[str], images: "Sequence[Image]") -> "torch.Tensor":
        """The cosine of each text and its picture: (n,), float32, on the CPU."""
        return (self.of_texts(texts) * self.of_images(images)).sum(-1)

    def of_images(self, images: "Sequence[Image]") -> "torch.Tensor":
        """Embeddings of length 1: (n, width)."""

        def read(part: "Sequence[Image]") -> Any:
            return self._processor(images=list(part), return_tensors="pt")

        return self._embedded(images, read, self._model.get_image_features)

    def of_texts(self, texts: Sequence[str]) -> "torch.Tensor":
        """Embeddings of length 1: (n, width); a text that is too long loses its end."""

        def read(part: Sequence[str]) -> Any:
            # SigLIP was trained so; CLIP looks at the end of the text, wherever it is.
            most = self._model.config.text_config.max_position_embeddings
            return self._processor(
                text=list(part),
                padding="max_length",
                max_length=most,
                truncation=True,
                return_tensors="pt",
            )

        return self._embedded(texts, read, self._model.get_text_features)

    def _embedded(
        self, given: Sequence[Any], read: Callable[[Any], Any], embed: Callable[..., Any]
    ) -> "torch.Tensor":
        import torch
        from torch.nn.functional import normalize

        found = []
        for start in range(0, len(given), _BATCH):
            with torch.inference_mode():
                out = embed(**read(given[start : start + _BATCH]).to(self._model.device))
            # Since version 5 of transformers the features come with the rest of the output.
            features = out if isinstance(out, torch.Tensor) else out.pooler_output
            found.append(normalize(features.float(), dim=-1).cpu())
        return torch.cat(found)


@cache
def embedder(model: str, processor: str, device: str, key: str) -> Embedder:
    """The model with the processor of the same or another model; each is loaded once.

    Args:
        key: the scorer's place in the spec.

    Raises:
        SpecError: they cannot be had, or are of another kind.
    """
    from transformers import AutoModel, AutoProcessor

    from evomerge_optuna.devices import torch_device

    folder = local_folder(model)
    where, revision = source_of(processor).location(processor)
    try:
        loaded = AutoModel.from_pretrained(folder, use_safetensors=True, trust_remote_code=False)
        read = AutoProcessor.from_pretrained(
            where, revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:  # libraries raise what they like
        raise SpecError(f"{key}: {model} cannot be loaded: {first_line(error)}") from error
    return Embedder(loaded.eval().to(torch_device(device)), read)


def check_embedder(model: str, key: str) -> None:
    """Refuses what is no model of texts and pictures, before its weights are read.

    Raises:
        SpecError: naming `key`.
    """
    from transformers import AutoConfig

    check_exists(model, key)
    where, revision = source_of(model).location(model)
    try:
        config = AutoConfig.from_pretrained(
            where, revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:
        raise SpecError(f"{key}: {model} cannot be had: {first_line(error)}") from error
    if not ("lip" in config.model_type and hasattr(config, "vision_config")):
        raise SpecError(
            f"{key}: {model} is a {config.model_type}; name a CLIP or SigLIP model, which puts "
            "texts and pictures into one space"
        )


def processor_files(model: str) -> list[Path]:
    """The files of a model's processor; its weights are not downloaded.

    Raises:
        SpecError: the hub does not give them.
    """
    folder = source_of(model).small_files(model)
    names = (*TOKENIZER_FILES, *PROCESSOR_FILES)
    return [file for name in names if (file := folder / name).is_file()]


def embedder_fingerprint(model: str, *files: Path) -> str:
    """SHA-256 over the model's weights and processor, and over other files."""
    found = fingerprint(local_folder(model))
    together = hashlib.sha256(f"{found.config}{found.weights}{found.tokenizer}".encode())
    for file in files:
        together.update(hashlib.sha256(file.read_bytes()).digest())
    return together.hexdigest()
