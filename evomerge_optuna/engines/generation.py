"""Text from a model: greedy answers to prompts, with images or without."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from evomerge_optuna.engines.batching import longest_first, within_memory
from evomerge_optuna.engines.decoding import greedy, is_decodable
from evomerge_optuna.engines.encoding import encode
from evomerge_optuna.engines.end_of_text import processor_without_end
from evomerge_optuna.engines.images import open_image
from evomerge_optuna.engines.lengths import fitted, room
from evomerge_optuna.engines.stops import Text, cut
from evomerge_optuna.engines.thinking import thinking_of, written_thinking
from evomerge_optuna.models.ends import ends_of_model
from evomerge_optuna.models.positions import positions
from evomerge_optuna.spec import Cut


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    stop: Sequence[str] = (),
    thinking: str | None = None,
    too_long: Cut | None = None,
) -> list[str | None]:
    """Greedy continuations of the prompts, without the prompts and without special tokens.

    A text ends with the end of sequence of the model's generation config, of which all else is
    ignored, or before the first of the `stop` strings. What a model thinks before it answers is
    left out, whatever stop strings it has; None where the thinking has no end. Batches are of like
    lengths; they are halved where they do not fit in memory. See `greedy` for how exact a batch is;
    architectures that are not for it (`is_decodable`) are run by `model.generate`.

    Args:
        thinking: what ends it, as `</think>`; found from the tokenizer unless given.
        too_long: how prompts are cut for which the model has no positions; refused unless given.

    Raises:
        SpecError: a prompt is too long.
        torch.OutOfMemoryError, MemoryError, RuntimeError: one prompt alone does not fit in memory.
    """
    left = room(positions(model.config), max_new_tokens)
    encoded = [
        fitted(encode(tokenizer, prompt), left, too_long, tokenizer.bos_token_id)
        for prompt in prompts
    ]
    ends = Ends(model, tokenizer, prompts, stop, thinking)
    longest = max(map(len, encoded), default=0) + max_new_tokens
    if is_decodable(model, longest) and all(encoded):
        found = greedy(model, encoded, max_new_tokens, batch_size, ends.reached)
    else:

        def inputs(places: list[int]) -> dict[str, torch.Tensor]:
            rows = [torch.tensor(encoded[place], dtype=torch.long) for place in places]
            ids = pad_sequence(rows, batch_first=True, padding_side="left").to(model.device)
            lengths = torch.tensor([len(row) for row in rows], device=model.device)
            columns = torch.arange(ids.shape[1], device=model.device)
            mask = (columns >= ids.shape[1] - lengths[:, None]).long()
            return {"input_ids": ids, "attention_mask": mask}

        found = _by_the_library(
            model, longest_first(encoded), inputs, max_new_tokens, batch_size, ends
        )
    return [ends.text(tokens) for tokens in found]


def generate_about(
    model: Any,
    processor: Any,
    prompts: Sequence[str],
    images: Sequence[bytes],
    max_new_tokens: int,
    batch_size: int,
    stop: Sequence[str] = (),
    thinking: str | None = None,
) -> list[str | None]:
    """Greedy continuations of prompts about an image each; see `generate`.

    Args:
        processor: the model's; its placeholder of images stands in each prompt once.
        images: the contents of image files.

    Raises:
        SpecError: a prompt is too long.
        torch.OutOfMemoryError, MemoryError, RuntimeError: one prompt alone does not fit in memory.
    """
    # A chat template may have written the first token, which most tokenizers would add again.
    bos = processor.tokenizer.bos_token
    begun = bool(bos) and any(prompt.startswith(bos) for prompt in prompts)
    processor = processor_without_end(processor)
    left = room(positions(model.config), max_new_tokens)

    def inputs(places: list[int]) -> dict[str, torch.Tensor]:
        batch = processor(
            text=[prompts[place] for place in places],
            images=[[open_image(images[place])] for place in places],
            padding=True,
            padding_side="left",
            add_special_tokens=not begun,
            return_tensors="pt",
        )
        # As long as the longest of them, which cannot be cut: its image may stand anywhere.
        fitted(batch["input_ids"][0].tolist(), left, None, None)
        return dict(batch.to(model.device, model.dtype))

    ends = Ends(model, processor.tokenizer, prompts, stop, thinking)
    found = _by_the_library(model, longest_first(prompts), inputs, max_new_tokens, batch_size, ends)
    return [ends.text(tokens) for tokens in found]


class Ends:
    """Where a text ends, and how it reads then.

    Args:
        prompts: that are continued; all of them begin to think, or none does.
        thinking: what ends it; found from the tokenizer unless given.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[str],
        stop: Sequence[str],
        thinking: str | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._thinking = thinking_of(tokenizer, thinking)
        self._begun = self._thinking is not None and all(map(self._thinking.is_begun, prompts))
        added = tokenizer.get_added_vocab()
        self._eos = set(ends_of_model(model))
        # Special tokens do not show in the text.
        self._stop_tokens = {added[string] for string in stop if string in added} - self._eos
        # A token is a byte or more of text; a few at the seam may read otherwise than in place.
        self._tail = 8 + max((len(string.encode()) for string in stop), default=0)

    @property
    def tokens(self) -> set[int]:
        """Those that end any text at once."""
        return self._eos if self._thinking else self._eos | self._stop_tokens

    @property
    def padding(self) -> int:
        """What `model.generate` fills up ended texts with; see `whole`."""
        found = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id or 0) if found is None else int(found)

    def reached(self, tokens: list[int]) -> bool:
        if tokens[-1] in self._eos:
            return True
        # The whole text is read only where its last few tokens give reason to.
        last = tokens[-self._tail :]
        if not self._is_stopped("", last):
            return False
        answer = self.answer(tokens)
        return answer is not None and self._is_stopped(*answer)

    def whole(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first that ends a text, without what fills it up."""
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
        """What follows the thinking, stop strings included; see `Thinking.answer`."""
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


@torch.inference_mode()
def _by_the_library(
    model: Any,
    waiting: list[int],
    inputs: Callable[[list[int]], dict[str, torch.Tensor]],
    max_new_tokens: int,
    batch_size: int,
    ends: Ends,
) -> list[list[int]]:
    """What `model.generate` adds to each prompt.

    Args:
        waiting: the prompts' places, in the order in which they are run.
        inputs: what the model is given for the prompts in such places, padded on the left.
    """
    # On the model, since generate fills in from there what the config it is given leaves open.
    own = model.generation_config
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=ends.padding,
        bos_token_id=own.bos_token_id,
        eos_token_id=sorted(ends.tokens) or None,
    )
    found: list[list[int]] = [[] for _ in waiting]

    def run(size: int) -> None:
        while waiting:
            given = inputs(waiting[:size])
            output = model.generate(**given, generation_config=model.generation_config)
            for place, tokens in zip(
                waiting, output[:, given["input_ids"].shape[1] :].tolist(), strict=False
            ):
                found[place] = ends.whole(tokens)
            del waiting[:size]

    try:
        within_memory(batch_size, run)
    finally:
        model.generation_config = own  # lm_eval tasks generate with it
    return found
