"""A study's prompts stay what they were at its creation: the day, the tokenizer, the template.

Covers `ready`, evaluation.day, evaluation.reading and merging.tokenizer, too.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import chat_template_utils

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.errors import SpecError, StudyChangedError
from evomerge_optuna.evaluation.day import on_day
from evomerge_optuna.merging.tokenizer import reader_of_recipe
from evomerge_optuna.report.card import model_card
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import DAY, PROMPTS
from evomerge_optuna.study.studies import open_study
from evomerge_optuna.study.unchanged import check_unchanged
from tests.conftest import WORDS, SpecMaker, save_tiny_model
from tests.engine import merged_of
from tests.scripted import save_scripted_model

# The forms of real models' templates in the minimum.
TURNS = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}assistant "
LLAMA_32 = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "Today Date: {{ date_string }} "
) + TURNS
SMOLLM3 = "{% set today = strftime_now('%d %B %Y') %}Today Date: {{ today }} " + TURNS
THINKS = "assistant <think> maybe 3 or 4 </think> it is 5 </s>"


@contextmanager
def clock(day: str) -> Iterator[None]:
    """What transformers takes for now."""
    with pytest.MonkeyPatch.context() as patch:
        now = datetime.fromisoformat(f"{day}T12:34")
        patch.setattr(chat_template_utils, "datetime", SimpleNamespace(now=lambda: now))
        yield


Make = Callable[..., StudySpec]


@pytest.fixture
def make(make_spec: SpecMaker, tmp_path: Path) -> Make:
    """A spec of a chat with three scripted models that have a template; keywords: of the task."""

    def made(template: str, **parts: Any) -> StudySpec:
        added = {"<think>": False, "</think>": False}
        words = ["user", "Q", "Today", "Date:", "28", "29", "Nov", "November", "2026"]
        for seed, name in enumerate(("base", "a", "b")):
            save_scripted_model(
                tmp_path / name, THINKS, words=words, added=added, template=template, seed=seed
            )
        for split in ("search", "test"):
            row = {"question": "Q " * (1 + (split == "test")), "answer": "5"}
            (tmp_path / f"{split}.jsonl").write_text(json.dumps(row))
        data = {split: {"path": str(tmp_path / f"{split}.jsonl")} for split in ("search", "test")}
        return make_spec(
            base_model=str(tmp_path / "base"),
            models={name: str(tmp_path / name) for name in "ab"},
            tasks={"t": {"type": "generate", "chat": True, "data": data, **parts}},
            objectives=[{"maximize": "t.accuracy"}],
        )

    return made


@pytest.mark.parametrize(
    ("template", "told"), [(LLAMA_32, "28 Nov 2026"), (SMOLLM3, "28 November 2026")]
)
def test_the_day_is_that_of_the_studys_creation(
    make: Make, home: Path, tmp_path: Path, template: str, told: str
) -> None:
    created = create_study(open_store(), make(template))
    assert created.day == date.today()
    created.study.set_user_attr(DAY, "2026-11-28")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "a")
    messages = [{"role": "user", "content": "Q"}]

    def asked() -> str:
        with on_day(open_study(open_store(), "tiny").day):
            return str(tokenizer.apply_chat_template(messages, tokenize=False))

    for day in ("2026-11-28", "2027-01-01"):
        with clock(day):
            assert f"Today Date: {told} user" in asked()
    with clock("2027-01-01"), on_day(None):
        assert told not in tokenizer.apply_chat_template(messages, tokenize=False)


def test_prompts_are_the_same_tomorrow(
    make: Make, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(date):
        @classmethod
        def today(cls) -> date:
            return date(2026, 11, 28)

    monkeypatch.setattr("evomerge_optuna.study.creation.date", Clock)
    spec = make(LLAMA_32)
    with clock("2026-11-28"):
        created = create_study(open_store(), spec)
        run_trials(created, trials=1)
    given: list[str] = []
    encode = PreTrainedTokenizerBase.__call__

    def noted(self: Any, text: Any, *rest: Any, **options: Any) -> Any:
        given.append(text)
        return encode(self, text, *rest, **options)

    with clock("2026-11-29"):
        opened = open_study(open_store(), "tiny")
        check_unchanged(opened, lambda _: None)
        monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", noted)
        run_trials(opened, trials=2)
        best = opened.best()
        assert best is not None
        FinalScorer(opened).final_scores(best)
    chats = [text for text in given if isinstance(text, str) and "Today" in text]
    assert len(chats) >= 4 and all("28 Nov 2026" in text for text in chats)
    assert "it told 2026-11-28." in model_card(opened, best, "0" * 64)


def test_other_prompts_are_noticed(make: Make, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where another version of a library fills a template in otherwise."""
    created = create_study(open_store(), make(TURNS))
    assert set(created.study.user_attrs[PROMPTS]) == {
        f"tasks.t.data.{split} as {key} reads it"
        for split in ("search", "test")
        for key in ("base_model", "models.a", "models.b")
    }
    check_unchanged(created, lambda _: None)
    own = PreTrainedTokenizerBase.apply_chat_template
    with monkeypatch.context() as other:
        other.setattr(
            PreTrainedTokenizerBase, "apply_chat_template", lambda *a, **k: own(*a, **k) + " Q"
        )
        with pytest.raises(StudyChangedError) as error:
            check_unchanged(open_study(open_store(), "tiny"), lambda _: None)
    told = "was begun with other prompts (tasks.t.data.search as base_model reads it: sha256 "
    assert told in str(error.value)
    created.study.set_user_attr(PROMPTS, None)  # of an earlier version
    check_unchanged(open_study(open_store(), "tiny"), lambda _: None)


def test_what_no_template_reads_is_refused(make: Make, home: Path) -> None:
    with pytest.raises(SpecError) as error:
        create_study(open_store(), make(TURNS, chat_args={"enable_thinkin": False}))
    assert str(error.value) == (
        "tasks.t.chat_args: no chat template of the models reads 'enable_thinkin'; correct or "
        "remove it"
    )
    read = "{% if enable_thinking is defined %}{% endif %}" + TURNS
    create_study(open_store(), make(read, chat_args={"enable_thinking": False}))


def test_every_models_positions_count(make: Make, home: Path, tmp_path: Path) -> None:
    spec = make(TURNS, max_new_tokens=8)
    own = json.loads((tmp_path / "b" / "config.json").read_text())

    def set_positions(name: str, count: int) -> None:
        config = {**own, "max_position_embeddings": count}
        (tmp_path / name / "config.json").write_text(json.dumps(config))

    set_positions("base", 11)  # which are the candidates'
    with pytest.raises(SpecError) as error:
        create_study(open_store(), spec)
    told = "tasks.t.data.test: row 1 ('Q Q ') has 4 tokens and 8 of an answer, but base_model ("
    assert str(error.value).startswith(told)
    set_positions("base", 12)
    set_positions("b", 11)
    with pytest.raises(SpecError, match=r"row 1 .* but models\.b \(.* has positions for 11; "):
        create_study(open_store(), spec)
    create_study(open_store(), make_cut(spec))


def make_cut(spec: StudySpec) -> StudySpec:
    (task,) = spec.tasks.values()
    return spec.model_copy(update={"tasks": {"t": task.model_copy(update={"too_long": "cut"})}})


def test_a_cut_off_thinking_is_told_once_a_task(make: Make, home: Path) -> None:
    created = create_study(open_store(), make(TURNS, max_new_tokens=4))
    said: list[str] = []
    run_trials(created, trials=3, say=said.append)
    told = (
        "tasks.t: 100% of 1 answers are none, since thinking was cut off; let it write more tokens"
    )
    (line,) = [line for line in said if "cut off" in line]
    assert line.startswith(f"trial 0: {told}")
    best = created.best()
    assert best is not None and result_of(best).scores["t.cut_off_share"].value == 1
    said.clear()
    FinalScorer(created, said.append).final_scores(best)
    assert any(line.startswith(f"a on test: {told}") for line in said)


@pytest.mark.parametrize("source", ["base", "union"])
def test_the_candidates_tokenizer_is_known_before_them(
    make_spec: SpecMaker, home: Path, tmp_path: Path, source: str
) -> None:
    save_tiny_model(tmp_path / "base", 0)
    for seed, name in enumerate("ab", start=1):
        save_tiny_model(tmp_path / name, seed, words=[*WORDS[seed:], f"new{name}"])
    spec = make_spec(
        base_model=str(tmp_path / "base"),
        models={name: str(tmp_path / name) for name in "ab"},
        merge={"method": "ties", "tokenizer_source": source},
    )
    created = create_study(open_store(), spec)
    assert sum("as merge reads it" in key for key in created.study.user_attrs[PROMPTS]) == 3
    recipe = created.space.recipe(created.space.baseline())
    reader = reader_of_recipe(recipe)
    merged = merged_of(Builder(spec.evaluation).build(recipe))
    assert reader.tokenizer.get_vocab() == merged.tokenizer.get_vocab()
    assert ("newb" in reader.tokenizer.get_vocab()) == (source == "union")
    positions = merged.model.config.max_position_embeddings
    assert reader.positions == positions and not reader.takes_images
    check_unchanged(created, lambda _: None)
