"""Real models that say what a test wants: a Llama whose next token hangs on its last alone."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>"]


def save_scripted_model(
    folder: Path,
    *lines: str,
    words: Sequence[str] = (),
    added: Mapping[str, bool] | None = None,
    template: str | None = None,
    around: str | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """A model that goes on as these lines do: after a word comes the one that follows it there.

    Args:
        words: others that it can read.
        added: tokens as `<think>` that are added, and whether each is special.
        template: its chat template.
        around: what its tokenizer puts around a text, as "<s> $A </s>".
        seed: of a little noise on the weights, by which two models differ.
    """
    spoken = [word for line in lines for word in line.split()]
    added = added or {}
    known = [name for name in (*SPECIAL, *spoken, *words) if name not in added]
    names = [*dict.fromkeys(known), *added]  # added tokens get the last ids
    ids = {name: place for place, name in enumerate(names)}
    torch.manual_seed(seed)
    size = -(-len(ids) // 8) * 8
    settings = {
        "vocab_size": len(ids),
        "hidden_size": size,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 3,
        "dtype": "float32",
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **config}))
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.copy_(0.001 * torch.randn_like(parameter))
        model.model.embed_tokens.weight.copy_(torch.eye(len(ids), size))
        head = torch.zeros(len(ids), size)
        for line in lines:
            said = [ids[word] for word in line.split()]
            for word, following in pairwise(said):
                head[following, word] = 1.0
        model.lm_head.weight.copy_(head)
    model.save_pretrained(folder)
    plain = {name: place for name, place in ids.items() if name not in added}
    tokenizer = Tokenizer(models.WordLevel(plain, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    for name, special in added.items():
        tokenizer.add_tokens([AddedToken(name, special=special)])
    if around is not None:
        tokenizer.post_processor = TemplateProcessing(
            single=around, special_tokens=[("</s>", 1), ("<s>", 3)]
        )
    special_names = [name for name, special in added.items() if special]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        bos_token="<s>",
        additional_special_tokens=special_names,
        chat_template=template,
    ).save_pretrained(folder)
    return folder
