"""The task fits the rows and the models: its scorer, its language, room for answers.

Covers proposal.facts, proposal.goals and proposal.merges, too.
"""

from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.errors import SpecError, UsageError
from evomerge_optuna.proposal.columns import columns_of
from evomerge_optuna.proposal.facts import ModelFacts, read_models
from evomerge_optuna.proposal.goals import CLIP, GOALS, HUMAN
from evomerge_optuna.proposal.merges import FEW, MANY, merge_of
from evomerge_optuna.proposal.tasks import TaskDraft, goal_of, language_in, task_of
from evomerge_optuna.spec import parse_spec
from tests.conftest import save_tiny_model

TEXT, VISION, PIPELINE = ModelFacts("text"), ModelFacts("vision"), ModelFacts("pipeline")


def rows(*answers: str, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"What is {n} ?", "answer": a, **more} for n, a in enumerate(answers)]


def task(
    data: list[dict[str, Any]],
    goal: str = "generate",
    models: ModelFacts = TEXT,
    language: str | None = None,
    judge: str = CLIP,
) -> TaskDraft:
    """A task, which a spec may have."""
    found = task_of(goal, "t", data, columns_of(data), models, language, judge)
    content = {**found.content, "data": {"search": {"path": "a.csv"}}}
    whole = {
        "study": "s", "stage": "ps", "models": {"a": "a", "b": "b"}, "merge": {"method": "linear"},
        "tasks": {"t": content}, "objectives": [found.target],
    }  # fmt: skip
    parse_spec(whole)
    assert set(found.notes) | set(found.offers) <= set(content)
    return found


@pytest.mark.parametrize(
    ("answers", "scorer"),
    [
        (("8", "1,234", "So it is 9. #### 9"), "last_number"),
        ((r"\frac{1}{2}", r"$x^2$"), "math"),
        (("Paris", "New York"), "contains"),
        (("It is a long way to " + "Tipperary " * 9,), "rouge_l"),
    ],
)
def test_the_scorer_fits_the_answers(answers: tuple[str, ...], scorer: str) -> None:
    found = task(rows(*answers))
    assert found.content["scorer"] == scorer
    assert found.target == {"maximize": "t.rouge_l" if scorer == "rouge_l" else "t.accuracy"}


def test_the_language_of_the_questions() -> None:
    data = [{"質問": f"りんごが{n}個あります。いくつですか？", "回答": str(n)} for n in range(5)]
    assert language_in(data, columns_of(data)) == "ja"
    assert task(data, language="ja").content["language"] == "ja"
    english = [{"question": "How many apples are there in the box ?", "answer": "1"}] * 5
    assert language_in(english, columns_of(english)) is None


def test_what_data_is_good_for() -> None:
    plain, choice = rows("1"), rows("x", choices=["x", "y"])
    seen = rows("1", image="a.png")
    texts = [{"text": "some words"}]
    for data, models, goal in (
        (plain, TEXT, "generate"),
        (choice, TEXT, "choice"),
        (seen, VISION, "vqa"),
        (seen, TEXT, "generate"),
        (texts, TEXT, "perplexity"),
        ([{"prompt": "a red house"}], PIPELINE, "image"),
    ):
        assert goal_of(columns_of(data), models) == goal
        assert goal in GOALS
    assert task(choice, "choice").target == {"maximize": "t.accuracy"}
    assert task(texts, "perplexity").target == {"minimize": "t.perplexity"}
    assert task(seen, "vqa", VISION).content["prompt"] == "<image>\n{question}"


@pytest.mark.parametrize(
    ("judge", "scorer"),
    [(CLIP, "clip"), ("zoo:sd-clip", "clip"), (HUMAN, "human"), ("mine:score", "python")],
)
def test_judges_of_pictures(judge: str, scorer: str) -> None:
    found = task([{"caption": "a red house"}], "image", PIPELINE, judge=judge)
    assert [s["type"] for s in found.content["scorers"].values()] == [scorer]
    assert found.content["prompt"] == "{caption}"


@pytest.mark.parametrize(
    ("goal", "data", "says"),
    [
        ("generate", [{"text": "a b c"}], "no column looks like the question; it has text"),
        ("choice", rows("1"), "a list of options"),
        ("vqa", rows("1"), "a column with pictures"),
        ("perplexity", [{"image": "a.png"}], "a column with texts"),
        ("image", [{"image": "a.png"}], "a column with prompts"),
    ],
)
def test_data_that_does_not_fit(goal: str, data: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        task(data, goal)


def facts(tiny: Path, *names: Path | str) -> ModelFacts:
    keys = ["base_model", *(f"models.{n}" for n in range(len(names) - 1))]
    return read_models({key: str(tiny / name) for key, name in zip(keys, names, strict=True)})


def test_answers_fit_into_the_models(tiny: Path, tmp_path: Path) -> None:
    small = save_tiny_model(tmp_path / "small", 1, max_position_embeddings=20)
    found = task(rows("8", "9"), models=facts(tiny, "base", small))
    assert found.content["max_new_tokens"] == (20 - 4) // 2
    assert found.notes["max_new_tokens"] == "the models read 20 tokens in all"
    assert task(rows("8"), models=facts(tiny, "base")).content["max_new_tokens"] == 256
    words = " ".join(["word"] * 60)
    assert task(rows(words), models=facts(tiny, "base")).content["max_new_tokens"] == 96


def test_what_models_have_in_common(tiny: Path, tmp_path: Path) -> None:
    found = facts(tiny, "base", "a", "b")
    assert (found.kind, found.layers, found.dtypes) == ("text", 4, {"float32"})
    assert found.one_vocabulary and not found.has_chat
    other = save_tiny_model(tmp_path / "o", 1, words=["new", "words"], dtype="bfloat16")
    (other / "chat_template.jinja").write_text("{{ messages }}")
    mixed = facts(tiny, "base", other)
    assert not mixed.one_vocabulary and mixed.dtypes == {"float32", "bfloat16"}
    assert mixed.has_chat and mixed.needs_a_template
    merge = merge_of(mixed, True, 10).content
    assert merge["tokenizer_source"] == "union" and merge["dtype"] == "bfloat16"
    assert merge["chat_template"] == "auto"
    assert task(rows("8"), models=mixed).content["chat"] is True
    with pytest.raises(SpecError, match="base_model: there is no folder"):
        facts(tiny, "none")


def test_more_trials_search_more() -> None:
    models = ModelFacts("text", 32, frozenset({"bfloat16"}))
    few, some, many = (merge_of(models, True, n) for n in (FEW - 1, FEW, MANY))
    assert "layer_group_size" not in few.content and few.offers
    assert (some.content["layer_group_size"], many.content["layer_group_size"]) == (16, 8)
    assert merge_of(models, False, 10).content["method"] == "linear"
    assert merge_of(PIPELINE, True, FEW).content["layer_groups"] == ["attn"]
