"""Greedy decoding by transformers' own `generate`, for what `decoding` does not know."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from evomerge_optuna.engines.batching import within_memory
from evomerge_optuna.engines.endings import Ends

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@torch.inference_mode()
def generate_by_library(
    model: "PreTrainedModel",
    waiting: list[int],
    inputs: Callable[[list[int]], dict[str, torch.Tensor]],
    max_new_tokens: int,
    batch_size: int,
    ends: Ends,
) -> list[list[int]]:
    """What `model.generate` adds to each prompt, as token ids.

    Args:
        waiting: the prompts' places, in the order in which they are run.
        inputs: makes what the model is given for the prompts in these places, padded on the left.
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
