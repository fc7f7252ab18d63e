"""Prompts about images; a text model at a vqa task is given the question alone."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge_optuna.evaluation.image_prompts import image_prompts
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks.vqa import VqaRunner
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import VqaTask
from tests.conftest import WORDS
from tests.engine import engine_of, generate

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


@pytest.mark.parametrize("chat", [False, True])
def test_it_answers_the_question_alone(tiny: Path, chat: bool) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    tokenizer.chat_template = TEMPLATE
    task = VqaTask.model_validate(
        {"type": "vqa", "data": "d", "chat": chat, "max_new_tokens": 5, "scorer": "exact"}
    )
    problems = [Problem(f"<image>\n{word} {WORDS[3]}", "a") for word in WORDS[:3]]
    found = VqaRunner("t", task).run(engine_of(model, tokenizer, batch_size=2), problems)
    said = "user {} " if chat else "{}"
    prompts = [said.format(f"{word} {WORDS[3]}") for word in WORDS[:3]]
    assert [answer.text for answer in found] == generate(model, tokenizer, prompts, 5, batch_size=2)


def test_a_chat_without_a_template_is_the_plain_text(tiny: Path) -> None:
    task = VqaTask.model_validate({"type": "vqa", "data": "d", "chat": True, "system": "word1"})
    reader = Reader(AutoTokenizer.from_pretrained(tiny / "a"))
    asked = image_prompts(task, [Problem("<image>\nword2")], reader, "t")
    assert asked == ["word1\nword2\n"]
