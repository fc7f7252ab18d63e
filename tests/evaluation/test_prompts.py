"""Prompts: what the model is given is what the shots and the chat template make of it.

Covers evaluation.tasks.prompted, too.
"""

from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.prompts import prompts
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import GenerateTask
from tests.conftest import WORDS
from tests.engine import generate

TEMPLATE = (
    "<s> {% for m in messages %}{{ m.role }} {{ m.content }} </s> {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)
SHOTS = [{"question": "1+1?", "answer": 2}, {"question": "2+2?", "answer": 4}]


def task(**parts: Any) -> GenerateTask:
    return GenerateTask.model_validate({"type": "generate", "data": "d", **parts})


def shown(found: GenerateTask, tokenizer: Any = None) -> str:
    (prompt,) = runners({"t": found})["t"].prompts(Reader(tokenizer), [Problem("Q?")])
    return prompt


@pytest.fixture
def chatty(tiny: Path) -> Any:
    """A tokenizer with a chat template that writes the first token, which it adds itself, too."""
    tokenizer = AutoTokenizer.from_pretrained(tiny / "a")
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_plain() -> None:
    assert shown(task()) == "Q?"
    assert shown(task(prompt="問：{question}", shots=SHOTS)) == "問：1+1? 2\n\n問：2+2? 4\n\nQ?"
    assert shown(task(shots=SHOTS[:1], target_delimiter="→")) == "1+1?→2\n\nQ?"


def test_shots_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "shots.csv"
    file.write_text("question,n,steps\na?,1,one\nb?,2,two\nc?,3,three\n")
    assert shown(task(shots={"path": str(file), "n": 2, "answer": "n"})) == "a? 1\n\nb? 2\n\nQ?"
    assert shown(task(shots={"path": str(file), "n": 1, "answer": "steps"})) == "a? one\n\nQ?"
    with pytest.raises(SpecError, match=r"t\.shots: .* has 3 rows; write n: 3"):
        shown(task(shots={"path": str(file), "answer": "n"}))


def test_a_chat(chatty: Any) -> None:
    found = shown(task(chat=True, system="S", shots=SHOTS[:1]), chatty)
    assert found == "<s> system S </s> user 1+1? </s> assistant 2 </s> user Q? </s> assistant"


def test_a_chats_tokens_are_the_templates_own(chatty: Any) -> None:
    messages = [{"role": "user", "content": WORDS[0]}]
    wanted = chatty.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    (prompt,) = prompts(task(chat=True), (), [Problem(WORDS[0])], Reader(chatty), "t")
    assert Reader(chatty).encode(prompt) == wanted
    assert wanted.count(chatty.bos_token_id) == 1
    assert Reader(chatty).encode(WORDS[0]) == chatty(WORDS[0])["input_ids"]
    assert Reader(chatty).encode(WORDS[0])[0] == chatty.bos_token_id


def test_generate_gives_the_model_the_templates_own_tokens(chatty: Any, tiny: Path) -> None:
    model, _ = load_model(tiny / "a", "cpu")
    model.resize_token_embeddings(len(chatty))
    (prompt,) = prompts(task(chat=True), (), [Problem(WORDS[0])], Reader(chatty), "t")
    given = []
    forward = model.forward
    model.forward = lambda *a, **k: given.append(k["input_ids"].tolist()) or forward(*a, **k)
    generate(model, chatty, [prompt], max_new_tokens=1, batch_size=1)
    assert given[0] == [Reader(chatty).encode(prompt)]


def test_a_tokenizer_without_chat_template(tiny: Path) -> None:
    plain = AutoTokenizer.from_pretrained(tiny / "a")
    with pytest.raises(
        SpecError,
        match=r"^tasks\.t\.chat: the tokenizer has no chat template; write chat_template: auto",
    ):
        shown(task(chat=True), plain)


def test_a_template_without_system_message(chatty: Any) -> None:
    chatty.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(
        SpecError, match=r"^tasks\.t\.chat: the chat template refuses .* not supported"
    ):
        shown(task(chat=True, system="S"), chatty)


@pytest.mark.parametrize(
    ("stop", "kept"), [((), 6), (("nothing",), 6), (("word6", "word0"), 2), (("word0", "14"), 0)]
)
def test_an_answer_ends_before_the_first_stop(tiny: Path, stop: tuple[str, ...], kept: int) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    (full,) = generate(model, tokenizer, [" ".join(WORDS[:3])], 6, 1)
    assert full == "word14 word14 word0 word6 word3 word3"
    (cut,) = generate(model, tokenizer, [" ".join(WORDS[:3])], 6, 1, stop=stop)
    assert cut == ("word" if kept == 0 else " ".join(full.split()[:kept]))
