"""How a model without eyes does where others see: it answers from the question alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import BatchFeature

# Of a tokenizer without a chat template: what is said, a line each.
_PLAIN = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"


class Blind:
    """Stands in for the processor that a text model has not: it reads prompts and sees nothing.

    What is right then is guessed, or known without the image: the question-only baseline of Antol
    et al. 2015.
    """

    image_token = ""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.chat_template = tokenizer.chat_template or _PLAIN

    def __call__(self, text: Sequence[str], images: Any, **options: Any) -> "BatchFeature":
        """The inputs of a text model; see its tokenizer."""
        from transformers import BatchFeature  # takes half a second

        return BatchFeature(data=self.tokenizer([one.strip() for one in text], **options))

    def apply_chat_template(self, messages: Sequence[dict[str, Any]], **options: Any) -> Any:
        """The conversation as the tokenizer has it, without images."""
        return self.tokenizer.apply_chat_template(
            [message | {"content": _words(message["content"])} for message in messages],
            chat_template=self.chat_template,
            **options,
        )


def _words(content: Any) -> str:
    """The text of a message's content."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")
