"""A text model at a vqa task: it is given the question alone, through the same way as others."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge_optuna.engines.generation import generate, generate_about
from evomerge_optuna.evaluation.blind import Blind
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.prompts import image_prompts
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.spec import VqaTask
from tests.conftest import WORDS
from tests.evaluation.tasks.test_vqa import IMAGES

TEMPLATE = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"


@pytest.mark.parametrize("chat", [False, True])
def test_it_answers_the_question_alone(tiny: Path, chat: bool) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    tokenizer.chat_template = TEMPLATE
    task = VqaTask.model_validate({"type": "vqa", "data": "d", "chat": chat})
    problems = [Problem(f"<image>\n{word} {WORDS[3]}") for word in WORDS[:3]]
    blind = Blind(AutoTokenizer.from_pretrained(tiny / "a", chat_template=TEMPLATE))
    found = generate_about(
        model, blind, image_prompts(task, problems, blind, "t"), IMAGES, 5, batch_size=2
    )
    said = "user {} " if chat else "{}"
    prompts = [said.format(f"{word} {WORDS[3]}") for word in WORDS[:3]]
    assert found == generate(model, tokenizer, prompts, 5, batch_size=2)


def test_a_chat_without_a_template_is_the_plain_text(tiny: Path) -> None:
    task = VqaTask.model_validate({"type": "vqa", "data": "d", "chat": True, "system": "word1"})
    blind = Blind(AutoTokenizer.from_pretrained(tiny / "a"))
    asked = image_prompts(task, [Problem("<image>\nword2")], blind, "t")
    assert asked == ["word1\nword2\n"]
