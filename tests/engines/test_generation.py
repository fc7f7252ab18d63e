"""Batched, padded generation gives what each prompt gives alone, and ends where it is told.

Covers engines.endings, engines.library and engines.transformers, too.
"""

import json
import shutil
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    PreTrainedTokenizerFast,
)

from evomerge_optuna.engines.decoding import is_decodable
from tests.conftest import WORDS
from tests.engine import generate

PROMPTS = [" ".join(WORDS[: 1 + i % 7]) + f" {WORDS[i]}" for i in range(11)]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_generate_is_each_prompts_own_greedy_answer(tiny: Path, batch_size: int) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    alone = []
    for prompt in PROMPTS:
        encoded = tokenizer(prompt, return_tensors="pt")
        output = model.generate(
            input_ids=encoded["input_ids"], max_new_tokens=6, do_sample=False, pad_token_id=0
        )
        new = output[0, encoded["input_ids"].shape[1] :]
        alone.append(tokenizer.decode(new, skip_special_tokens=True).strip())
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=batch_size) == alone


def test_greedy_whatever_the_checkpoint_says(tiny: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4)
    shutil.copytree(tiny / "a", tmp_path / "a")
    settings = {
        "eos_token_id": 1,
        "do_sample": True,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "forced_eos_token_id": 7,
        "suppress_tokens": list(range(8, 12)),
        "num_beams": 3,
        "min_new_tokens": 6,
        "stop_strings": ["word"],
    }
    (tmp_path / "a" / "generation_config.json").write_text(json.dumps(settings))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert model.generation_config.repetition_penalty == 5
    for _ in range(2):
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=4) == plain


def test_the_checkpoints_end_of_sequence_is_kept(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    (full,) = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=6, batch_size=1)
    first = full.split()[0]
    model.generation_config.eos_token_id = [1, tokenizer.convert_tokens_to_ids(first)]
    assert generate(model, tokenizer, PROMPTS[:1], max_new_tokens=6, batch_size=1) == [first]


def test_a_tokenizer_without_padding_token(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    plain = AutoTokenizer.from_pretrained(tiny / "a")
    with_pad = generate(model, plain, PROMPTS, max_new_tokens=4, batch_size=4)
    plain.pad_token = None
    assert generate(model, plain, PROMPTS, max_new_tokens=4, batch_size=4) == with_pad


class Spy:
    """Counts the rows of every forward pass."""

    def __init__(self, model: Any) -> None:
        self.rows: list[int] = []
        model.register_forward_pre_hook(
            lambda _, __, inputs: self.rows.append(len(inputs["input_ids"])), with_kwargs=True
        )


def test_a_text_ends_before_the_first_stop_string(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    full = generate(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=4)
    words = full[0].split()
    stop = (f"{words[3]} {words[4]}", words[6], "nowhere")
    spy = Spy(model)
    found = generate(model, tokenizer, PROMPTS, 12, 4, stop)
    assert found == [
        text[: min([text.find(s) for s in stop if s in text], default=None)].strip()
        for text in full
    ]
    assert found[0] == full[0][: full[0].find(stop[0])].strip() != full[0]
    stopped = sum(spy.rows)
    spy.rows.clear()
    generate(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=4)
    assert stopped < sum(spy.rows)


def test_a_stop_string_may_be_a_special_token(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    (full,) = generate(model, tokenizer, PROMPTS[:1], max_new_tokens=6, batch_size=1)
    last = full.split()[-1]
    tokenizer.add_special_tokens({"additional_special_tokens": [last]})
    (found,) = generate(model, tokenizer, PROMPTS[:1], 6, 1, stop=[last])
    assert found == full[: full.find(last)].strip()


def test_an_architecture_that_cannot_share_goes_by_the_library(tiny: Path) -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=19, hidden_size=16, n_layer=2, n_head=2, eos_token_id=1)
    model = BloomForCausalLM(config).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    assert not is_decodable(model, 10)
    alone = [generate(model, tokenizer, [prompt], 6, 1)[0] for prompt in PROMPTS]
    assert generate(model, tokenizer, PROMPTS, 6, 4) == alone
    stop = alone[0].split()[-1]
    found = generate(model, tokenizer, PROMPTS, 6, 4, stop=[stop])
    assert found == [text.partition(stop)[0].strip() for text in alone] != alone


def test_a_special_token_stops_what_goes_by_the_library() -> None:
    torch.manual_seed(0)
    config = BloomConfig(
        vocab_size=16, hidden_size=16, n_layer=2, n_head=2, initializer_range=1.0, eos_token_id=None
    )
    model = BloomForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    words = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, "word0"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)  # to which word0 fills up
    full = [text.split() for text in generate(model, tokenizer, PROMPTS, 6, 4)]
    stop = full[0][2]
    tokenizer.add_special_tokens({"additional_special_tokens": [stop]})
    found = generate(model, tokenizer, PROMPTS, 6, 4, stop=[stop])
    assert found == [" ".join(takewhile(lambda word: word != stop, text)) for text in full]
    assert 0 < sum(stop in text for text in full) < len(full)


def test_an_empty_prompt_is_continued_beside_others(tiny: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny / "a")
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=64)
    assert generate(model, tokenizer, [*PROMPTS, ""], 6, 64)[:-1] == plain
    assert generate(model, tokenizer, [], 6, 64) == []
