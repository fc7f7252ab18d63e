"""How long a text a model can read."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def positions(config: "PretrainedConfig") -> int | None:
    """The tokens that a model's configuration has positions for; None: it names no bound.

    It is `max_position_embeddings`, or what an architecture calls so (`n_positions` of GPT-2), also
    where rotary frequencies are scaled: the configuration names the length that this gives.
    """
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
