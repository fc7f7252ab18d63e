"""Models that think: what they think is no answer, and a thinking without an end is none at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from evomerge_optuna.engines.thinking import thinking_of
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.spec import CUT_OFF
from tests.conftest import SpecMaker
from tests.engine import engine_of, generate
from tests.scripted import save_scripted_model

THINKS = "assistant <think> maybe 3 STOP or 4 </think> it is 5 </s>"
# The forms of real models' templates in the minimum.
TURNS = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
QWEN3 = TURNS + (
    "{% if add_generation_prompt %}assistant "
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
DEEPSEEK_R1 = TURNS + "{% if add_generation_prompt %}assistant <think>\n{% endif %}"


@pytest.fixture(scope="module")
def thinker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thinks as Qwen3 does; after an empty thinking, too, it says that it is 5."""
    folder = tmp_path_factory.mktemp("thinking") / "qwen3"
    added = {"<think>": False, "</think>": False}
    return save_scripted_model(folder, THINKS, words=["user", "Q"], added=added, template=QWEN3)


def test_the_answer_is_what_comes_after_the_thinking(thinker: Path) -> None:
    model, tokenizer = load_model(thinker, "cpu")

    def answer(prompt: str, tokens: int = 20, **options: Any) -> str | None:
        (found,) = generate(model, tokenizer, [prompt], tokens, 1, **options)
        return found

    assert answer("assistant") == "it is 5"  # it begins to think by itself
    assert answer("assistant <think>\n") == "it is 5"  # or the template has begun
    assert answer("assistant <think>\n\n</think>\n\n") == "it is 5"
    assert answer("maybe") == "it is 5"  # a thinking whose beginning nobody wrote
    assert answer("assistant", 4) is None
    assert answer("assistant <think>\n", 3) is None
    assert answer("is", 1) == "5"  # it does not think
    assert answer("assistant", stop=["STOP", "3", "</think>"]) == "it is 5"
    assert answer("assistant", stop=["is"]) == "it"
    assert answer("assistant", 6, stop=["STOP"]) is None
    assert answer("maybe", stop=["STOP"]) == "3"  # nothing says that it thinks


@pytest.mark.parametrize(
    ("start", "end", "special"),
    [
        ("[THINK]", "[/THINK]", True),  # Magistral
        ("<thought>", "</thought>", False),
        ("<seed:think>", "</seed:think>", True),
        ("<think>", "</think>", True),
    ],
)
def test_marks_of_other_models(tmp_path: Path, start: str, end: str, special: bool) -> None:
    script = f"go {start} 3 and 4 {end} so 5 </s>"
    added = {start: special, end: special}
    model, tokenizer = load_model(save_scripted_model(tmp_path / "m", script, added=added), "cpu")
    for prompt in ("go", f"go {start}"):
        assert generate(model, tokenizer, [prompt], 20, 1, stop=["and"]) == ["so 5"]
        assert generate(model, tokenizer, [prompt], 3, 1) == [None]


def test_a_mark_of_several_tokens() -> None:
    """gpt-oss's channels, which are special tokens around a word."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_tokenizer(),
        additional_special_tokens=["<|channel|>", "<|message|>", "<|end|>", "<|start|>"],
        chat_template="{{ '<|channel|>final<|message|>' }}",
    )
    thinking = thinking_of(tokenizer, None)
    assert thinking is not None and thinking.end_token is None

    def answer(text: str) -> str | None:
        found = thinking.answer(tokenizer(text)["input_ids"], begun=False)
        return found and found[0] + tokenizer.decode(found[1], skip_special_tokens=True)

    thought = "<|channel|>analysis<|message|>It is 3 or 4."
    said = "<|end|><|start|>assistant<|channel|>final<|message|>"
    assert answer(thought) is None
    assert answer(thought + said) == ""
    assert answer(thought + said + "It is 5. 五") == "It is 5. 五"
    assert answer("<|channel|>final<|message|>It is 5.") == "It is 5."
    assert answer("It is 5.") == "It is 5."


def test_a_mark_in_the_midst_of_tokens() -> None:
    """Where no token is the mark, but one ends in it or goes on after it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_tokenizer(["k>\n\nS"]))
    thinking = thinking_of(tokenizer, "</think>")
    assert thinking is not None
    tokens = tokenizer("<think>é 3</think>\n\nSo 5é")["input_ids"]
    assert tokenizer.decode(thinking.answer(tokens, begun=False)[1]) == "o 5é"
    assert thinking.answer(tokens, begun=False)[0] == "\n\nS"
    assert thinking.answer(tokens[:12], begun=False) is None


def bytes_tokenizer(pieces: Sequence[str] = ()) -> Tokenizer:
    """Byte-level BPE whose tokens are bytes, and these pieces whole."""
    alphabet = {letter: place for place, letter in enumerate(sorted(ByteLevel.alphabet()))}
    merges, spelling = [], ByteLevel(add_prefix_space=False, use_regex=False)
    for piece in pieces:
        ((spelled, _),) = spelling.pre_tokenize_str(piece)
        for place in range(1, len(spelled)):
            merges.append((spelled[:place], spelled[place]))
            alphabet[spelled[: place + 1]] = len(alphabet)
    tokenizer = Tokenizer(BPE(vocab=alphabet, merges=merges))
    tokenizer.pre_tokenizer, tokenizer.decoder = spelling, decoders.ByteLevel()
    return tokenizer


def test_a_mark_that_the_task_gives(tmp_path: Path) -> None:
    """Of a model that thinks in plain words: what has no end is no answer, whoever began it."""
    script = "go thought: 3 Response: 5 </s>"
    model, tokenizer = load_model(save_scripted_model(tmp_path / "m", script), "cpu")
    assert generate(model, tokenizer, ["go"], 20, 1) == ["thought: 3 Response: 5"]
    given = {"thinking": "Response:", "stop": ["3"]}
    assert generate(model, tokenizer, ["go"], 20, 1, **given) == ["5"]
    assert generate(model, tokenizer, ["go"], 2, 1, **given) == [None]
    # Where the marks are no tokens of the vocabulary, only text.
    script = "go <think> 3 </think> 5 </s>"
    model, tokenizer = load_model(save_scripted_model(tmp_path / "n", script), "cpu")
    assert generate(model, tokenizer, ["go"], 20, 1, thinking="</think>") == ["5"]
    assert generate(model, tokenizer, ["go"], 2, 1, thinking="</think>") == [None]


def test_a_second_thinking_without_an_end_is_no_answer(tmp_path: Path) -> None:
    script = "go <think> 3 </think> so 4 <think> no 5 </think> it is 6 </s>"
    _, tokenizer = load_model(save_scripted_model(tmp_path / "m", script), "cpu")
    tokens = tokenizer(script)["input_ids"]
    for given in (thinking_of(tokenizer, "</think>"), marked(tokenizer)):
        found = [given.answer(tokens[:count], begun=False) for count in (2, 4, 6, 7, 9, 11)]
        said = [None if a is None else (a[0] + tokenizer.decode(a[1])).strip() for a in found]
        assert said == [None, "", "so 4", None, None, "it"]


def marked(tokenizer: Any) -> Any:
    """The same with tokens of their own."""
    ids = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    tokenizer.get_added_vocab = lambda: dict(zip(["<think>", "</think>"], ids, strict=True))
    return thinking_of(tokenizer, None)


def test_the_library_hears_a_model_out(thinker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `model.generate` runs it, stop strings that are tokens do not end its thinking."""
    model, tokenizer = load_model(thinker, "cpu")
    monkeypatch.setattr("evomerge_optuna.engines.transformers.is_decodable", lambda *_: False)
    assert generate(model, tokenizer, ["assistant"], 20, 1, stop=["STOP"]) == ["it is 5"]
    assert generate(model, tokenizer, ["assistant"], 20, 1, stop=["is"]) == ["it"]


def scored(make_spec: SpecMaker, folder: Path, tmp_path: Path, **parts: Any) -> Any:
    file = tmp_path / "data.jsonl"
    file.write_text('{"question": "Q", "answer": "5", "wrong": "4"}\n')
    content = {"type": "generate", "chat": True, "data": {"search": {"path": str(file)}}, **parts}
    spec = make_spec(tasks={"t": content}, objectives=[{"maximize": "t.accuracy"}])
    return Evaluator(spec).evaluate(engine_of(*load_model(folder, "cpu")), "search")


def test_a_cut_off_answer_counts_and_is_told(
    make_spec: SpecMaker, thinker: Path, tmp_path: Path
) -> None:
    found = scored(make_spec, thinker, tmp_path)
    assert found.scores["t.accuracy"].value == 1 and found.scores[f"t.{CUT_OFF}"].value == 0
    assert not found.remarks
    cut = scored(make_spec, thinker, tmp_path, max_new_tokens=5)
    assert cut.scores["t.accuracy"].value == 0 and cut.scores[f"t.{CUT_OFF}"].value == 1
    assert cut.remarks["t"].startswith(
        "tasks.t: 100% of 1 answers are none, since thinking was cut"
    )
    # Without thinking, five tokens are enough.
    short = scored(
        make_spec, thinker, tmp_path, max_new_tokens=5, chat_args={"enable_thinking": False}
    )
    assert short.scores["t.accuracy"].value == 1 and not short.remarks
    # "4" was thought, "5" was answered.
    assert scored(make_spec, thinker, tmp_path, answer="wrong").scores["t.accuracy"].value == 0


def test_a_choice_is_asked_when_the_thinking_is_over(make_spec: SpecMaker, tmp_path: Path) -> None:
    folder = save_scripted_model(
        tmp_path / "r1",
        "assistant <think> no </s>",
        "</think> yes </s>",
        words=["user", "Q"],
        added={"<think>": False, "</think>": False},
        template=DEEPSEEK_R1,
    )
    parts = {"type": "choice", "options": ["no", "yes"], "answer": "right"}
    file = tmp_path / "data.jsonl"
    file.write_text('{"question": "Q", "right": "yes"}\n')
    content = {"chat": True, "data": {"search": {"path": str(file)}}, **parts}
    spec = make_spec(tasks={"t": content}, objectives=[{"maximize": "t.accuracy"}])
    found = Evaluator(spec).evaluate(engine_of(*load_model(folder, "cpu")), "search")
    assert found.scores["t.accuracy"].value == 1


def test_what_a_spec_may_not_say(make_spec: SpecMaker) -> None:
    def refusal(**parts: Any) -> str:
        task = {"type": "generate", "data": {"search": {"path": "a.jsonl"}}, **parts}
        with pytest.raises(SpecError) as error:
            make_spec(tasks={"t": task}, objectives=[{"maximize": "t.accuracy"}])
        return str(error.value)

    assert "chat_args: only a chat has a template" in refusal(chat_args={"enable_thinking": False})
    assert "'tokenize' is none of the template's own variables" in refusal(
        chat=True, chat_args={"tokenize": True}
    )
    assert "thinking" in refusal(thinking="")


def test_a_model_that_thinks_in_words_no_tokenizer_knows_of(tmp_path: Path) -> None:
    """As a merge of a model that thinks, in the vocabulary of one that does not."""
    line = "ask <think> 2 STOP 9 </think> it is 5 </s>"
    model, tokenizer = load_model(save_scripted_model(tmp_path / "model", line), "cpu")
    assert tokenizer.get_added_vocab().keys().isdisjoint({"<think>", "</think>"})
    assert generate(model, tokenizer, ["ask"], 20, 1, stop=["STOP"]) == ["it is 5"]
    assert generate(model, tokenizer, ["ask"], 3, 1) == [None]
