"""What is longer than a model has positions for: refused, or cut where the task says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import Cut


@dataclass(frozen=True)
class Given:
    """Tokens that a model is given for a problem, and how many it may add."""

    tokens: Sequence[int]
    added: int = 0

    @property
    def length(self) -> int:
        """In positions, at most."""
        return len(self.tokens) + self.added


def room(positions: int | None, added: int) -> int | None:
    """How long a prompt may be, in tokens; None: as long as it likes.

    Args:
        positions: that the model has.
        added: tokens that come after the prompt.

    Raises:
        SpecError: there is none.
    """
    if positions is None:
        return None
    if added >= positions:
        raise SpecError(
            f"{added:,} tokens after the prompt, but the model has {positions:,} positions for both"
        )
    return positions - added


def fitted(tokens: list[int], room: int | None, how: Cut | None, bos: int | None) -> list[int]:
    """The tokens where they fit; else without those in the way, the first kept if it is `bos`.

    `cut` leaves out what comes first, `cut_middle` what is in the middle.

    Raises:
        SpecError: they do not fit, and nothing is to be cut.
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
