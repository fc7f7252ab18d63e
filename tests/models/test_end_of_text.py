"""Prompts do not end with the end of the text, whatever a tokenizer puts behind what it reads."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import ByT5Tokenizer

from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.models.end_of_text import without_end
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.reader import Reader
from tests.conftest import SpecMaker
from tests.engine import engine_of, generate, log_likelihoods, negative_log_likelihoods
from tests.scripted import save_scripted_model

SCRIPT = ("red is warm </s>", "blue means cold </s>")
AROUND = {"$A": [], "<s> $A": [3], "$A </s>": [], "<s> $A </s>": [3], "<s> $A </s> </s>": [3]}


@pytest.mark.parametrize("around", AROUND)
def test_what_is_put_before_a_text_stays(tmp_path: Path, around: str) -> None:
    model, tokenizer = load_model(
        save_scripted_model(tmp_path / "m", *SCRIPT, around=around), "cpu"
    )
    whole = tokenizer("red is")["input_ids"]
    for text in ("red is", "nothing", ""):
        plain = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert Reader(tokenizer).encode(text) == [*AROUND[around], *plain]
    assert Reader(tokenizer).encode("<s> red </s>") == [
        3,
        tokenizer.get_vocab()["red"],
        1,
    ]  # as written
    assert tokenizer("red is")["input_ids"] == whole  # the model's own is as it was
    assert (without_end(tokenizer) is tokenizer) == (not around.endswith("</s>"))
    assert generate(model, tokenizer, ["red is"], 3, 1) == ["warm"]


def test_a_tokenizer_in_python() -> None:
    tokenizer = ByT5Tokenizer()
    assert tokenizer("ab")["input_ids"][-1] == tokenizer.eos_token_id
    assert Reader(tokenizer).encode("ab") == tokenizer("ab", add_special_tokens=False)["input_ids"]


@pytest.fixture
def pair(tmp_path: Path) -> list[tuple[Any, Any]]:
    """A model and its tokenizer, and the same with one that puts an end behind what it reads."""
    plain = save_scripted_model(tmp_path / "plain", *SCRIPT, around="<s> $A")
    appends = save_scripted_model(tmp_path / "appends", *SCRIPT, around="<s> $A </s>")
    return [load_model(folder, "cpu") for folder in (plain, appends)]


def test_likelihoods_are_those_of_the_text(pair: list[tuple[Any, Any]]) -> None:
    pairs = [("red is", " warm"), ("red is", " cold"), ("blue means", " cold")]
    texts = ["red is warm", "blue means cold"]
    options, whole = (
        [find(model, tokenizer, given, 2) for model, tokenizer in pair]
        for find, given in ((log_likelihoods, pairs), (negative_log_likelihoods, texts))
    )
    assert options[0] == options[1] and whole[0] == whole[1]
    assert options[0][0] > options[0][1]


def test_tasks_of_the_harness(
    make_spec: SpecMaker, pair: list[tuple[Any, Any]], tmp_path: Path
) -> None:
    rows = [
        {"question": "red is", "choices": ["cold", "warm"], "label": 1},
        {"question": "blue means", "choices": ["cold", "warm"], "label": 0},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for kind, name in (("multiple_choice", "choose"), ("generate_until", "say")):
        choice = kind == "multiple_choice"
        (tmp_path / f"{name}.yaml").write_text(
            json.dumps(
                {
                    "task": name,
                    "dataset_path": "json",
                    "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
                    "test_split": "test",
                    "output_type": kind,
                    "doc_to_text": "{{question}}",
                    "doc_to_target": "label" if choice else "{{choices[label]}}",
                    **({"doc_to_choice": "choices"} if choice else {}),
                    **({} if choice else {"generation_kwargs": {"max_gen_toks": 2, "until": []}}),
                    "metric_list": [{"metric": "acc" if choice else "exact_match"}],
                }
            )
        )
        task = {
            "type": "lm_eval",
            "task": name,
            "include_path": str(tmp_path),
            "metric": "acc" if choice else "exact_match",
            "data": {"search": "[:2]"},
        }
        spec = make_spec(tasks={"t": task}, objectives=[{"maximize": f"t.{task['metric']}"}])
        allow([str(tmp_path)])
        for model, tokenizer in pair:
            found = Evaluator(spec).evaluate(engine_of(model, tokenizer), "search")
            (score,) = found.scores.values()
            assert score.value == 1
