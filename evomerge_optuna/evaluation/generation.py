"""Text from a model: greedy answers to prompts, and the likelihood of given texts. Batched."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig

from evomerge_optuna.evaluation.prompts import encode


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int,
    stop: Sequence[str] = (),
) -> list[str]:
    """Greedy continuations of the prompts, without the prompts and without special tokens.

    Prompts are padded on the left, so that each continues at its own last token; they are batched
    by length to pad little, and answered in the order given. The model keeps a generation config
    that is greedy and nothing more. An answer ends before the first of the strings in `stop`.
    """
    tokenizer.padding_side = "left"
    # On the model, since generate fills in from there what the config it is given leaves open.
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=_pad_token(tokenizer),
        bos_token_id=model.generation_config.bos_token_id,
        eos_token_id=model.generation_config.eos_token_id,
    )
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]), reverse=True)
    answers = [""] * len(encoded)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in chosen]}, padding=True, return_tensors="pt"
        ).to(model.device)
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=model.generation_config,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        for i, text in zip(
            chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
        ):
            ends = [found for end in stop if (found := text.find(end)) >= 0]
            answers[i] = text[: min(ends, default=None)].strip()
    return answers


@torch.inference_mode()
def negative_log_likelihoods(
    model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int
) -> list[tuple[float, int]]:
    """For each text the sum of -log p(token | tokens before), in nats, and the tokens counted.

    A text of one token, which has nothing before it, counts none.
    """
    tokenizer.padding_side = "right"
    _pad_token(tokenizer)
    encoded = [tokenizer(text)["input_ids"] for text in texts]
    measured = [i for i, ids in enumerate(encoded) if len(ids) > 1]
    results = [(0.0, 0)] * len(encoded)
    for start in range(0, len(measured), batch_size):
        chosen = measured[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in chosen]}, padding=True, return_tensors="pt"
        ).to(model.device)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, 1:], reduction="none"
        )
        counted = mask[:, 1:].bool()
        sums = (losses * counted).sum(dim=1)
        for i, total, tokens in zip(
            chosen, sums.tolist(), counted.sum(dim=1).tolist(), strict=True
        ):
            results[i] = (total, tokens)
    return results


def _pad_token(tokenizer: Any) -> int:
    """The padding token; a tokenizer without one pads with its end of sequence, masked out."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return int(tokenizer.pad_token_id)
