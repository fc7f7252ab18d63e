"""What a model reads with: its tokenizer, its positions and, where it takes images, a processor."""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge_optuna.models.end_of_text import without_end

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BatchFeature, PreTrainedTokenizerBase, ProcessorMixin


@dataclass(frozen=True)
class Reader:
    """How a model reads prompts; known before any weight of it is loaded.

    Attributes:
        tokenizer: of a model that takes images its processor's.
        positions: how many tokens the model has positions for; None: no bound is known.
        processor: makes inputs of text and images; None: the model takes no images.
    """

    tokenizer: "PreTrainedTokenizerBase"
    positions: int | None = None
    processor: "ProcessorMixin | None" = None

    @property
    def takes_images(self) -> bool:
        return self.processor is not None

    @property
    def chat_template(self) -> str | None:
        """Its own chat template: of a model that takes images its processor's."""
        template: str | None = getattr(self.processor or self.tokenizer, "chat_template", None)
        return template

    def encode(self, text: str) -> list[int]:
        """The text's token ids, with what the tokenizer puts before it, once, and no end of text.

        A chat template may have written the first token, which most tokenizers would add again.
        """
        bos = self.tokenizer.bos_token
        begun = bool(bos) and text.startswith(bos)
        ids: list[int] = without_end(self.tokenizer)(text, add_special_tokens=not begun)[
            "input_ids"
        ]
        return ids

    def inputs(
        self, prompts: "Sequence[str]", images: "Sequence[Image]", begun: bool
    ) -> "BatchFeature":
        """A model's inputs for prompts about one image each, padded at the left.

        Args:
            begun: the prompts already have the token that begins a text.
        """
        assert self.processor is not None  # the model takes images
        processor = copy.copy(self.processor)
        processor.tokenizer = without_end(processor.tokenizer)
        found: BatchFeature = processor(
            text=list(prompts),
            images=[[image] for image in images],
            padding=True,
            padding_side="left",
            add_special_tokens=not begun,
            return_tensors="pt",
        )
        return found

    def has_template_argument(self, name: str) -> bool:
        """Does a chat template of the model read this variable?"""
        templates = (
            getattr(own, "chat_template", None) for own in (self.tokenizer, self.processor)
        )
        return any(re.search(rf"\b{re.escape(name)}\b", str(t or "")) for t in templates)
