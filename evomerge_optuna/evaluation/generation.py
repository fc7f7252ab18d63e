"""Text from a model: greedy answers to prompts, and the likelihood of given texts. Batched."""

from collections.abc import Sequence
from typing import Any

import torch


@torch.inference_mode()
def generate(
    model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, batch_size: int
) -> list[str]:
    """Greedy continuations of the prompts, without the prompts and without special tokens.

    Prompts are padded on the left, so that each continues at its own last token; they are batched
    by length to pad little, and answered in the order given.
    """
    tokenizer.padding_side = "left"
    pad_token = _pad_token(tokenizer)
    encoded = [tokenizer(prompt)["input_ids"] for prompt in prompts]
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
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=pad_token,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        for i, text in zip(
            chosen, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True
        ):
            answers[i] = text.strip()
    return answers


@torch.inference_mode()
def negative_log_likelihoods(
    model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int
) -> list[tuple[float, int]]:
    """For each text the sum of -log p(token | tokens before), in nats, and the tokens counted."""
    tokenizer.padding_side = "right"
    _pad_token(tokenizer)
    results = []
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(
            list(texts[start : start + batch_size]), padding=True, return_tensors="pt"
        ).to(model.device)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), ids[:, 1:], reduction="none"
        )
        counted = mask[:, 1:].bool()
        sums = (losses * counted).sum(dim=1)
        results += list(zip(sums.tolist(), counted.sum(dim=1).tolist(), strict=True))
    return results


def _pad_token(tokenizer: Any) -> int:
    """The padding token; a tokenizer without one pads with its end of sequence, masked out."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return int(tokenizer.pad_token_id)
