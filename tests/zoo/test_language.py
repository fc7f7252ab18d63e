"""The zoo's checkpoints are ordinary ones, the same at every build, and built once.

Covers zoo.training, too.
"""

import hashlib
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.zoo.language import RECIPE, ZOO, Recipe, build_zoo, make_tokenizer
from evomerge_optuna.zoo.problems import held_out
from tests.forked import processes


def short(recipe: Recipe = RECIPE) -> Recipe:
    """The same zoo with three steps a model."""
    return replace(recipe, **{name: replace(recipe.course(name), steps=3) for name in ZOO})


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.*"))
    }


def test_two_builds_give_the_same_bytes_and_the_second_call_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forkserver: None
) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: processes)  # saves their imports
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "one"))
    seen: list[tuple[int, int]] = []
    first = build_zoo(lambda done, total: seen.append((done, total)), short())
    assert seen[-1] == (12, 12)
    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "two"))
    second = build_zoo(recipe=short())
    assert digests(first) == digests(second)
    assert len({digests(first)[f"{name}/model.safetensors"] for name in ZOO}) == len(ZOO)

    monkeypatch.setenv("EVOMERGE_HOME", str(tmp_path / "one"))
    build_zoo(lambda done, total: pytest.fail("trained again"), short())

    other = build_zoo(recipe=short(replace(RECIPE, seed=1)))
    assert digests(other)["base/model.safetensors"] != digests(first)["base/model.safetensors"]

    model = AutoModelForCausalLM.from_pretrained(first / "add")
    tokenizer = AutoTokenizer.from_pretrained(first / "add")
    batch = tokenizer(
        [p.question("ja") for p in held_out()["search"][:4]], padding=True, return_tensors="pt"
    )
    assert (batch["input_ids"][:, -1] != tokenizer.pad_token_id).all()
    assert model.generate(**batch, max_new_tokens=2).shape[0] == 4
    assert model.config.vocab_size == len(tokenizer)


def test_tokenizer_gives_back_every_text() -> None:
    tokenizer = make_tokenizer()
    for problem in held_out()["dev"]:
        for text in (problem.question("ja"), problem.question("en"), problem.answer("ja", 81)):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True) == text
