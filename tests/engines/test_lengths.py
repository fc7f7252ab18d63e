"""What a model has no positions for is refused by its row, or cut where the task says so.

Covers models.positions and models.reader, too.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, BloomConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig

from evomerge_optuna.engines.lengths import fitted
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.reading import reader_of
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.positions import positions
from evomerge_optuna.scoring import score_checkpoint
from tests.conftest import WORDS, SpecMaker, save_tiny_model
from tests.engine import generate, log_likelihoods, negative_log_likelihoods
from tests.scripted import save_scripted_model


@given(
    tokens=st.lists(st.integers(3, 9), min_size=1),
    begun=st.booleans(),
    room=st.integers(1, 12),
    how=st.sampled_from(["cut", "cut_middle"]),
)
def test_what_is_cut(tokens: list[int], begun: bool, room: int, how: Any) -> None:
    whole = [1] * begun + tokens
    found = fitted(whole, room, how, bos=1)
    assert len(found) == min(len(whole), room)
    assert fitted(whole, None, None, bos=1) == whole
    if len(whole) > room:
        kept = int(begun)  # the first token, which is no part of the text
        assert found[:kept] == whole[:kept]
        half = (room - kept) // 2 if how == "cut_middle" else 0
        assert found[kept:] == [
            *tokens[:half],
            *tokens[len(tokens) - (room - kept - half) :],
        ]
        with pytest.raises(SpecError, match=r"shorten it, or write too_long: cut"):
            fitted(whole, room, None, bos=1)


def test_positions() -> None:
    assert positions(GPT2Config(n_positions=64)) == 64
    assert positions(LlamaConfig(max_position_embeddings=128)) == 128
    scaled = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    assert positions(LlamaConfig(max_position_embeddings=128, rope_parameters=scaled)) == 128
    assert positions(BloomConfig()) is None
    vision = AutoConfig.for_model("llava", text_config={"model_type": "llama"})
    vision.text_config.max_position_embeddings = 99
    assert positions(vision) == 99


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def short(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 12 positions; GPT-2 cannot read more, Llama does so without a word."""
    folder = tmp_path_factory.mktemp("short") / request.param
    save_tiny_model(folder, seed=1, max_position_embeddings=12)
    if request.param == "gpt2":
        ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
        config = GPT2Config(vocab_size=19, n_positions=12, n_embd=16, n_layer=2, n_head=2, **ends)
        GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_cut_texts_are_asked(short: Path) -> None:
    model, tokenizer = load_model(short, "cpu")
    text = " ".join(WORDS * 2)  # 32 tokens
    last = " ".join((WORDS * 2)[-8:])
    middle = " ".join([*WORDS[:4], *WORDS[-4:]])
    for how, kept in (("cut", last), ("cut_middle", middle)):
        asked = [generate(model, tokenizer, [one], 4, 1, too_long=how) for one in (text, kept)]
        assert asked[0] == asked[1]
        pairs = [[(one, " word3 word5 word7 word9")] for one in (text, kept)]
        found = [log_likelihoods(model, tokenizer, pair, 1, how) for pair in pairs]
        assert found[0] == pytest.approx(found[1], abs=1e-5)
    twelve = " ".join((WORDS * 2)[-12:])
    cut, whole = (negative_log_likelihoods(model, tokenizer, [t], 1, "cut") for t in (text, twelve))
    assert cut == whole and cut[0][1] == 11
    for ask in (
        lambda: generate(model, tokenizer, [text], 4, 1),
        lambda: log_likelihoods(model, tokenizer, [(text, " word3")], 1),
        lambda: negative_log_likelihoods(model, tokenizer, [text], 1),
    ):
        with pytest.raises(SpecError, match=r"has 3. tokens, and the model has positions for"):
            ask()
    with pytest.raises(SpecError, match="12 tokens after the prompt, but the model has 12"):
        generate(model, tokenizer, ["word1"], 12, 1, too_long="cut")


TASKS: dict[str, dict[str, Any]] = {
    "generate": {"type": "generate", "scorer": "exact", "max_new_tokens": 4},
    "choice": {"type": "choice", "options": ["word1 word2", "word3"], "answer": "right"},
    "perplexity": {"type": "perplexity", "text": "{question}"},
}
METRICS = {"generate": "accuracy", "choice": "accuracy", "perplexity": "perplexity"}


@pytest.mark.parametrize("kind", TASKS)
def test_evaluate_names_task_row_and_length(
    make_spec: SpecMaker, short: Path, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "rows.jsonl"
    texts = ["word1 word2", " ".join(WORDS)]
    file.write_text(
        "".join(
            json.dumps({"question": t, "answer": "word3", "right": "word3"}) + "\n" for t in texts
        )
    )

    def spec(**parts: Any) -> Any:
        task = {**TASKS[kind], "data": {"search": {"path": str(file)}}, **parts}
        goal = "minimize" if kind == "perplexity" else "maximize"
        return make_spec(tasks={"t": task}, objectives=[{goal: f"t.{METRICS[kind]}"}])

    with pytest.raises(SpecError) as error:
        score_checkpoint(str(short), spec(), "search")
    added = {"generate": " and 4 of an answer", "choice": " and 2 of an answer", "perplexity": ""}
    assert str(error.value) == (
        f"tasks.t.data.search: row 2 ('word0 word1 word2 word3 word4 word5 word') has 16 tokens"
        f"{added[kind]}, but MODEL ({short}) has positions for 12; shorten it, or write "
        "too_long: cut"
    )
    for how in ("cut", "cut_middle"):
        assert score_checkpoint(str(short), spec(too_long=how), "search").scores
    if kind == "generate":
        with pytest.raises(SpecError, match=r"row 1 .* and 12 of an answer.*shorten the answer"):
            score_checkpoint(str(short), spec(max_new_tokens=12, too_long="cut"), "search")


def test_a_chat_is_measured_as_it_is_given(make_spec: SpecMaker, tmp_path: Path) -> None:
    template = "<s> {% for m in messages %}{{ m.content }} {% endfor %} word word word"
    folder = save_scripted_model(
        tmp_path / "m", "word word", template=template, max_position_embeddings=8
    )
    file = tmp_path / "rows.jsonl"
    file.write_text('{"question": "word", "answer": "word"}\n')
    task = {"type": "generate", "data": {"search": {"path": str(file)}}, "chat": True}
    for tokens, fits in ((3, True), (4, False)):
        own = {**task, "scorer": "exact", "max_new_tokens": tokens}
        spec = make_spec(tasks={"t": own}, objectives=[{"maximize": "t.accuracy"}])
        evaluator, reader = Evaluator(spec), reader_of(OpenedModel(str(folder), "MODEL"))
        if fits:
            evaluator.check(reader, "search")
        else:
            with pytest.raises(SpecError, match=r"has 5 tokens and 4 of an answer"):
                evaluator.check(reader, "search")
