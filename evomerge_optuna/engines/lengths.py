"""Texts longer than a model has positions for: they are refused, or cut if a task says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import Cut


@dataclass(frozen=True)
class Given:
    """The token ids that a model is given for a problem, and how many it may add."""

    tokens: Sequence[int]
    added: int = 0

    @property
    def length(self) -> int:
        """How many positions both take at most."""
        return len(self.tokens) + self.added


def room(positions: int | None, added: int) -> int | None:
    """How many tokens a prompt may have; None: any number.

    Args:
        positions: how many the model has; None: no bound is known.
        added: how many tokens come after the prompt.

    Raises:
        SpecError: there is no room for a prompt.
    """
    if positions is None:
        return None
    if added >= positions:
        raise SpecError(
            f"{added:,} tokens after the prompt, but the model has {positions:,} positions for both"
        )
    return positions - added


def fitted(tokens: list[int], room: int | None, how: Cut | None, bos: int | None) -> list[int]:
    """The tokens, cut to the room there is; a first token that is `bos` stays.

    `cut` leaves out the beginning, `cut_middle` the middle.

    Raises:
        SpecError: the tokens do not fit, and nothing is to be cut.
    """
    if room is None or len(tokens) <= room:
        return tokens
    if how is None:
        raise SpecError(
            f"a text has {len(tokens):,} tokens, and the model has positions for {room:,}; "
            "shorten it, or write too_long: cut"
        )
    first = tokens[:1] if tokens[0] == bos else []
    head = len(first) + ((room - len(first)) // 2 if how == "cut_middle" else 0)
    return [*tokens[:head], *tokens[len(tokens) - (room - head) :]]
