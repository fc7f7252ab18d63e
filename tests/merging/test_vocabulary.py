"""A union of vocabularies is the first one, then what others add, always in the same order."""

from pathlib import Path

from transformers import AutoTokenizer

from evomerge_optuna.merging.vocabulary import union_tokenizer
from tests.conftest import WORDS, save_tiny_model


def test_the_first_ones_ids_stay(home: Path, tmp_path: Path) -> None:
    first = save_tiny_model(tmp_path / "first", 1)
    others = [
        save_tiny_model(tmp_path / name, 2, words=[*WORDS[8:], *new])
        for name, new in {"second": ["neu", "alt"], "third": ["alt", "nuevo"]}.items()
    ]
    made = union_tokenizer([first, *others])
    before = AutoTokenizer.from_pretrained(first).get_vocab()
    after = AutoTokenizer.from_pretrained(made).get_vocab()
    assert {token: after[token] for token in before} == before
    assert sorted(after, key=after.__getitem__)[len(before) :] == ["neu", "alt", "nuevo"]


def test_it_is_made_once(home: Path, tiny: Path) -> None:
    made = union_tokenizer([tiny / "a", tiny / "b"])
    when = made.stat().st_mtime_ns
    assert union_tokenizer([tiny / "a", tiny / "b"]) == made
    assert made.stat().st_mtime_ns == when
