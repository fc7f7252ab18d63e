"""How the zoo's models are trained: a vocabulary of words, examples, AdamW. Deterministic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

# The inputs of a step, labels among them.
Batch = dict[str, "torch.Tensor"]

IGNORED = -100  # labels that transformers leaves out of the loss


@dataclass(frozen=True)
class FamilyRecipe:
    """What decides the weights of a family of the zoo; each adds its courses."""

    seed: int = 0
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    mlp: int = 384


def word_tokenizer(words: Sequence[str]) -> "PreTrainedTokenizerFast":
    """One token a word and a digit; a number's further digits are continuations, as in `4 ##2`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    digits = [str(digit) for digit in range(10)]
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    tokens = [*special, *digits, *(f"##{digit}" for digit in digits)]
    tokens += [word for word in words if word not in tokens]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def llama_config(tokenizer: "PreTrainedTokenizerFast", recipe: FamilyRecipe) -> "LlamaConfig":
    """The shape of the zoo's language models."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )


def padded(pairs: Sequence[tuple[list[int], list[int]]], padding: int) -> Batch:
    """Token ids and labels, (batch, longest), padded on the right."""
    import torch

    longest = max(len(ids) for ids, _ in pairs)
    return {
        "input_ids": torch.tensor([ids + [padding] * (longest - len(ids)) for ids, _ in pairs]),
        "labels": torch.tensor(
            [labels + [IGNORED] * (longest - len(labels)) for _, labels in pairs]
        ),
    }


def train(
    model: "PreTrainedModel",
    batches: Iterator[Batch],
    steps: int,
    learning_rate: float,
) -> None:
    """AdamW with a cosine schedule, on one thread: more would wait for each other."""
    import torch

    from evomerge_optuna.machine import threads

    with threads(1):
        model.train()
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=learning_rate,
            betas=(0.9, 0.98),  # 0.999 remembers longer than a course lasts
            weight_decay=0.01,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            model(**next(batches), use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
