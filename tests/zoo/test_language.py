"""The language models are trained to ordinary checkpoints; see `test_make` for what they can do.

Covers zoo.training, too.
"""

from dataclasses import replace
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge_optuna.zoo.language import RECIPE, ZOO, make_tokenizer, train_zoo
from evomerge_optuna.zoo.problems import held_out


def test_trained_models_are_ordinary_checkpoints(tmp_path: Path) -> None:
    short = replace(RECIPE, **{name: replace(RECIPE.course(name), steps=2) for name in ZOO})
    train_zoo(tmp_path, short)
    assert len({(tmp_path / name / "model.safetensors").read_bytes() for name in ZOO}) == len(ZOO)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "add")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "add")
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
