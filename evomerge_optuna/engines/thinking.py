"""Models that think before they answer: what they write before the end of thinking is no answer.

A model may begin to think by itself, or the chat template may begin its thinking.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# How thinking begins and ends, by the models that write so.
_MARKS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, SmolLM3, GLM
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<thought>", "</thought>"),  # EXAONE Deep
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
)


@dataclass(frozen=True)
class Thinking:
    """What begins and ends a model's thinking, and how its tokenizer writes that.

    Attributes:
        start: what thinking begins with; None: every answer is thought about.
        end: what it ends with.
        start_token, end_token: their ids where they are one token.
    """

    tokenizer: "PreTrainedTokenizerBase"
    start: str | None
    end: str
    start_token: int | None
    end_token: int | None

    def is_begun(self, prompt: str) -> bool:
        """Does the model think from its first token on, because the prompt ends so?"""
        return self.start is None or prompt.rstrip().endswith(self.start)

    def ended(self, prompt: str) -> str:
        """The prompt with its thinking over, where it has begun in it."""
        if self.start is None or not self.is_begun(prompt):
            return prompt
        return f"{prompt.rstrip()}\n\n{self.end}\n\n"

    def answer(self, tokens: list[int], begun: bool) -> tuple[str, list[int]] | None:
        """What follows the last end of thinking; None where it has no end.

        Args:
            tokens: that the model has written.
            begun: did its prompt begin to think?

        Returns:
            The rest of the token in which the thinking ends, as text, and the tokens behind it.
        """
        rest, own = self._after(tokens) or ("", tokens)
        is_over = len(own) < len(tokens)
        if (begun and not is_over) or self._is_open(rest, own):
            return None
        return rest, own

    def _after(self, tokens: list[int]) -> tuple[str, list[int]] | None:
        """As `answer`; None where there is no end."""
        if self.end_token is not None:
            places = [place for place, token in enumerate(tokens) if token == self.end_token]
            return ("", tokens[places[-1] + 1 :]) if places else None

        def ends(last: int) -> int:
            return self._decode(tokens[: last + 1]).count(self.end)

        count = ends(len(tokens))
        if not count:
            return None
        last = bisect_left(range(len(tokens)), count, key=ends)
        return self._decode(tokens[: last + 1]).rpartition(self.end)[2], tokens[last + 1 :]

    def _is_open(self, rest: str, tokens: list[int]) -> bool:
        """Does thinking begin in them, of which the end is not there?"""
        if self.start_token is not None:
            return self.start_token in tokens
        return self.start is not None and self.start in rest + self._decode(tokens)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False))


def thinking_of(tokenizer: "PreTrainedTokenizerBase", given: str | None) -> Thinking | None:
    """How a model's thinking is separated from its answer; None where nothing says that it thinks.

    Args:
        tokenizer: the model's, whose added tokens or chat template have the marks.
        given: what ends the thinking, where the task says so.
    """
    added: dict[str, int] = tokenizer.get_added_vocab()
    template = str(getattr(tokenizer, "chat_template", None) or "")
    if given is None:
        found = (pair for pair in _MARKS if pair[1] in added or pair[1] in template)
        start, end = next(found, (None, None))
    else:
        start, end = _start_of(given), given
    if end is None:
        return None
    return Thinking(tokenizer, start, end, added.get(start or ""), added.get(end))


def written_thinking(tokenizer: "PreTrainedTokenizerBase", tokens: list[int]) -> Thinking | None:
    """That of a model whose tokenizer and template name no marks, but which begins with one.

    So does a merge of a model that thinks into the vocabulary of one that does not.
    """
    text = str(tokenizer.decode(tokens, skip_special_tokens=True)).lstrip()
    found = (pair for pair in _MARKS if text.startswith(pair[0]))
    start, end = next(found, (None, None))
    return None if end is None else Thinking(tokenizer, start, end, None, None)


def _start_of(end: str) -> str | None:
    """What begins the thinking that ends so: `<x>` of `</x>`, `[X]` of `[/X]`."""
    known = {known_end: start for start, known_end in _MARKS}
    bracketed = re.fullmatch(r"(\W+)/(.+)", end)
    return known.get(end) or (bracketed[1] + bracketed[2] if bracketed else None)
