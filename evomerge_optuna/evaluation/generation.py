"""Text from a model: greedy answers to prompts, with images or without."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig

from evomerge_optuna.evaluation.batching import longest_first, within_memory
from evomerge_optuna.evaluation.decoding import greedy, is_decodable
from evomerge_optuna.evaluation.images import open_image
from evomerge_optuna.evaluation.prompts import encode
from evomerge_optuna.evaluation.stops import cut


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    stop: Sequence[str] = (),
) -> list[str]:
    """Greedy continuations of the prompts, without the prompts and without special tokens.

    A text ends with the end of sequence of the model's generation config, of which all else is
    ignored, or before the first of the `stop` strings. Batches are of like lengths; they are halved
    where they do not fit in memory. See `greedy` for how exact a batch is; architectures that are
    not for it (`is_decodable`) are run by `model.generate`.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: one prompt alone does not fit in memory.
    """
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    ends = _Ends(model, tokenizer, stop)
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
) -> list[str]:
    """Greedy continuations of prompts about an image each; see `generate`.

    Args:
        processor: the model's; its placeholder of images stands in each prompt once.
        images: the contents of image files.

    Raises:
        torch.OutOfMemoryError, MemoryError, RuntimeError: one prompt alone does not fit in memory.
    """
    # A chat template may have written the first token, which most tokenizers would add again.
    bos = processor.tokenizer.bos_token
    begun = bool(bos) and any(prompt.startswith(bos) for prompt in prompts)

    def inputs(places: list[int]) -> dict[str, torch.Tensor]:
        batch = processor(
            text=[prompts[place] for place in places],
            images=[[open_image(images[place])] for place in places],
            padding=True,
            padding_side="left",
            add_special_tokens=not begun,
            return_tensors="pt",
        )
        return dict(batch.to(model.device, model.dtype))

    ends = _Ends(model, processor.tokenizer, stop)
    found = _by_the_library(model, longest_first(prompts), inputs, max_new_tokens, batch_size, ends)
    return [ends.text(tokens) for tokens in found]


class _Ends:
    """Where a text ends, and how it reads then."""

    def __init__(self, model: Any, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        added = tokenizer.get_added_vocab()
        eos = model.generation_config.eos_token_id
        self.tokens = {
            *([] if eos is None else [eos] if isinstance(eos, int) else eos),
            # Special tokens do not show in the text.
            *(added[string] for string in stop if string in added),
        }
        # A token is a byte or more of text; a few at the seam may read otherwise than in place.
        self._tail = 8 + max((len(string.encode()) for string in stop), default=0)

    @property
    def padding(self) -> int:
        """What `model.generate` fills up ended texts with; see `whole`."""
        found = self._tokenizer.pad_token_id
        return int(self._tokenizer.eos_token_id or 0) if found is None else int(found)

    def reached(self, tokens: list[int]) -> bool:
        if tokens[-1] in self.tokens:
            return True
        # The whole text is read only where its last few tokens give reason to.
        return self._stops(tokens[-self._tail :]) and self._stops(tokens)

    def whole(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first that ends a text, without what fills it up."""
        ends = (place for place, token in enumerate(tokens, start=1) if token in self.tokens)
        return tokens[: next(ends, None)]

    def text(self, tokens: list[int]) -> str:
        text = self._decode(tokens)
        return cut(text, self._stop)

    def _stops(self, tokens: list[int]) -> bool:
        return bool(self._stop) and bool(self._found(self._decode(tokens)))

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
    ends: _Ends,
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
