"""Where a generated text ends, and what of it is the answer; the same for every engine."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from evomerge_optuna.engines.stops import Text, cut
from evomerge_optuna.engines.thinking import thinking_of, written_thinking

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Ends:
    """Where a text ends, and how it reads then.

    Args:
        eos: the ids that end any text of the model.
        prompts: that are continued; all of them begin to think, or none does.
        stop: strings before which a text ends.
        thinking: what ends the thinking; None: the tokenizer tells it.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        eos: Collection[int],
        prompts: Sequence[str],
        stop: Sequence[str],
        thinking: str | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._thinking = thinking_of(tokenizer, thinking)
        self._begun = self._thinking is not None and all(map(self._thinking.is_begun, prompts))
        added = tokenizer.get_added_vocab()
        self._eos = set(eos)
        # Special tokens do not show in the text.
        self._stop_tokens = {added[string] for string in stop if string in added} - self._eos
        # A token is a byte or more of text; a few at the seam may read otherwise than in place.
        self._tail = 8 + max((len(string.encode()) for string in stop), default=0)

    @property
    def tokens(self) -> set[int]:
        """The ids that end any text at once."""
        return self._eos if self._thinking else self._eos | self._stop_tokens

    @property
    def padding(self) -> int:
        """The id that `model.generate` fills up ended texts with; see `whole`."""
        found = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id or 0) if found is None else int(found)

    def reached(self, tokens: list[int]) -> bool:
        """Is the text of these tokens complete?"""
        if tokens[-1] in self._eos:
            return True
        # The whole text is read only where its last few tokens give reason to.
        last = tokens[-self._tail :]
        if not self._is_stopped("", last):
            return False
        answer = self.answer(tokens)
        return answer is not None and self._is_stopped(*answer)

    def whole(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first that ends a text."""
        ends = (place for place, token in enumerate(tokens, start=1) if token in self.tokens)
        return tokens[: next(ends, None)]

    def text(self, tokens: list[int]) -> Text | None:
        """The answer in these tokens; None where thinking has no end."""
        answer = self.answer(tokens)
        if answer is None:
            return None
        rest, own = answer
        stops = (place for place, token in enumerate(own) if token in self._stop_tokens)
        text = rest + self._decode(own[: next(stops, None)])
        return cut(text, self._stop)

    def answer(self, tokens: list[int]) -> tuple[str, list[int]] | None:
        """What follows the thinking, with any stop strings; see `Thinking.answer`."""
        thinking = self._thinking or written_thinking(self._tokenizer, tokens)
        return ("", tokens) if thinking is None else thinking.answer(tokens, self._begun)

    def _is_stopped(self, rest: str, tokens: list[int]) -> bool:
        if not self._stop:
            return False
        return not self._stop_tokens.isdisjoint(tokens) or bool(
            self._found(rest + self._decode(tokens))
        )

    def _found(self, text: str) -> list[str]:
        return [string for string in self._stop if string in text]

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
