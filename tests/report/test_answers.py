"""Answers as a person reads them: those that were scored, of every model, on every split.

Covers evaluation.answered, report.notes and study.answers, too.
"""

import html
import io
import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from rich.console import Console

from evomerge_optuna.engines import load_engine
from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.report.answers import (
    NOTED,
    Asked,
    answer_lines,
    answer_view,
    answers_note,
    answers_of_study,
    side_by_side,
)
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.report.notes import study_note, trial_note
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import EvaluationSpec, ImageTask, Task, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import WORDS, CommandLine

SIGNS = "<b>|`$x$`|\\_*a* [l](http://e.example) \n\n# h \x1b[31m &lt;"


@pytest.fixture
def content(spec_content: Callable[..., dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """Words to go on with, words to choose from, and texts that have no answers."""
    rows = [
        {
            "question": f"{WORDS[n % 10]} {WORDS[n // 10]} {n // 5}",
            "answer": WORDS[n % 3],
            "choices": WORDS[:3],
        }
        for n in range(60)
    ]
    data = {}
    for number, split in enumerate(("search", "dev", "test")):
        file = tmp_path / f"{split}.jsonl"
        chosen = rows[20 * number : 20 * number + 20]
        file.write_text("".join(json.dumps(row) + "\n" for row in chosen))
        data[split] = {"path": str(file)}
    common: dict[str, Any] = {"data": data}
    tasks = {
        "words_on": {"type": "generate", "scorer": "contains", "max_new_tokens": 6} | common,
        "choose": {"type": "choice", "prompt": "Which? {question}"} | common,
    }
    content = spec_content(objectives=[{"maximize": "choose.accuracy"}])
    return content | {"tasks": tasks | content["tasks"]}


@pytest.fixture
def merge_study(content: dict[str, Any], home: Path) -> MergeStudy:
    created = create_study(open_store(), parse_spec(content))
    run_trials(created, 3)
    return created


def rows(merge_study: MergeStudy, split: str | None = None) -> list[dict[str, Any]]:
    said: list[str] = []
    asked = answers_of_study(merge_study, [find_trial(merge_study, "0")], split, said.append)
    assert "tasks.words: a perplexity task has no answers to read" in said
    return [json.loads(line) for line in answer_lines(asked)]


def in_a_terminal(asked: list[Asked]) -> str:
    console = Console(width=300, file=io.StringIO(), record=True)
    console.print(answer_view(asked))
    return console.export_text()


def test_what_a_search_keeps_can_be_read(merge_study: MergeStudy) -> None:
    found = rows(merge_study)
    assert {row["split"] for row in found} == {"dev"}  # the last that trial 0 was scored on
    found = rows(merge_study, "search")
    assert {row["model"] for row in found} == {"uniform merge", "trial 0"}  # the same recipe
    trial = find_trial(merge_study, "0")
    shown = in_a_terminal(answers_of_study(merge_study, [trial], "search", lambda _: None))
    for part in ("words_on 1 (search)", "reference: word", "40 problems; right: uniform merge"):
        assert part in shown
    with pytest.raises(UsageError, match=r"no answers of trial 0 on test are stored.*--trial 0"):
        rows(merge_study, "test")


def test_all_that_is_tested_can_be_read(merge_study: MergeStudy) -> None:
    said: list[str] = []
    scored = FinalScorer(merge_study, said.append).final_scores(find_trial(merge_study, "0"))
    found = rows(merge_study)
    assert {row["split"] for row in found} == {"test"}
    for table_row in scored:
        for task in ("words_on", "choose"):
            own = [r for r in found if (r["model"], r["task"]) == (table_row.name, task)]
            assert [row["number"] for row in own] == [*range(1, 21)]
            right = sum(row["right"] for row in own)
            assert right / 20 == table_row.scores["test"][f"{task}.accuracy"].value
    assert {row["reference"] for row in found} == {*WORDS[:3]}
    chosen = next(row for row in found if row["task"] == "choose")
    assert chosen["answer"] in WORDS[:3]
    assert chosen["read"].count(",") == 2

    describe_study(merge_study)
    note = study_note(merge_study)
    assert "answer of trial" in note and "on test" in note
    trial = merge_study.trials()[0]
    assert "on search | prompt" in trial_note(merge_study, trial, merge_study.read())


def test_of_the_command_line(
    command_line: CommandLine, content: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    spec, file = tmp_path / "tiny.yaml", tmp_path / "answers.jsonl"
    content["tasks"]["words_on"]["stop"] = ["word"]
    spec.write_text(yaml.safe_dump(content))
    out, err = command_line.run(
        "evaluate", str(tiny / "a"), "--task", str(spec), "--answers", str(file), "--json"
    )
    found = [json.loads(line) for line in file.read_text().splitlines()]
    scores = json.loads(out)["scores"]
    right = [row["right"] for row in found if row["task"] == "choose"]
    assert scores["choose.accuracy"]["value"] == sum(right) / len(right)
    assert "tasks.words: a perplexity task has no answers" in err
    assert "answers are empty: they begin with the stop string 'word'" in err

    created = create_study(open_store(), parse_spec(content))
    said: list[str] = []
    run_trials(created, 2, say=said.append)
    assert sum("they begin with the stop string" in line for line in said) == 1  # not of each trial
    out, _ = command_line.run("study", "answers", "tiny", "--wrong", "--json", "--trial", "0")
    found = [json.loads(line) for line in out.splitlines()]
    assert found and not any(row["right"] for row in found if row["model"] == "trial 0")


def test_a_study_without_answers(
    spec_content: Callable[..., dict[str, Any]], home: Path, tmp_path: Path
) -> None:
    created = create_study(open_store(), parse_spec(spec_content()))
    run_trials(created, 1)
    with pytest.raises(UsageError, match=r"a perplexity task has no answers to read$"):
        rows(created)
    assert "answer of" not in study_note(created)


def hostile(content: dict[str, Any], count: int) -> tuple[Any, list[dict[str, Any]]]:
    found = [
        {
            "task": "words_on", "prompt": f"{SIGNS}{n}", "text": SIGNS, "reference": SIGNS,
            "found": None, "match": 0.0, "language_right": True, "right": n % 3 == 0,
        }
        for n in range(count)
    ]  # fmt: skip
    return runners(parse_spec(content).tasks), found


def test_a_note_is_small_and_shows_signs_as_they_are(content: dict[str, Any]) -> None:
    tasks, stored = hostile(content, 500)
    for row in stored:
        row["text"] = SIGNS + "word " * 1000
    note = answers_note(tasks, "test", stored, "trial 1")
    lines = note.splitlines()
    assert len(lines) == 2 + NOTED
    assert len(note) < 20_000
    cells = lines[2].split(" | ")
    assert len(cells) == 5  # without "read in it": nothing was
    assert html.unescape(cells[2]).startswith(
        "<b>|`$x$`|\\_*a* [l](http://e.example) # h \\x1b[31m"
    )
    assert not set("<>`$*_[]\\") & set(note.split("\n", 2)[2])
    assert sum("wrong" in line for line in lines) == sum("right" in line for line in lines) == 6


def test_tables_have_no_empty_columns() -> None:
    task = {"type": "image", "data": "zoo:scenes", "scorers": {"right": {"type": "zoo"}}}
    tasks = runners({"look": ImageTask.model_validate(task)})
    row = {"task": "look", "prompt": "赤い 丸", "seed": 3, "scores": {"right": 1.0}, "right": True}
    note = answers_note(tasks, "test", [row], "trial 1")
    assert note.splitlines()[0] == "| on test | prompt | verdict |"
    shown = in_a_terminal(side_by_side(tasks, "test", {"m": [row]}))
    assert "verdict" in shown and "answer" not in shown and "read" not in shown


def test_a_terminal_gets_no_orders(content: dict[str, Any]) -> None:
    tasks, stored = hostile(content, 2)
    shown = in_a_terminal(side_by_side(tasks, "test", {"m": stored}))
    assert "\x1b" not in shown and "\\x1b[31m" in shown


ROWS: list[tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]] = [
    (
        {"type": "generate", "data": "d", "language": "ja"},
        {
            **{"prompt": "?", "text": "It is 18.", "reference": "#### 18", "found": "18"},
            **{"match": 1.0, "language_right": False, "right": False},
        },
        ("?", "It is 18.", "18", "#### 18", False, "wrong language"),
    ),
    (
        {"type": "vqa", "data": "d", "scorer": "rouge_l"},
        {
            **{"prompt": "<image>?", "text": "a b", "reference": "a c", "found": "a b"},
            **{"match": 0.5, "language_right": True, "right": None},
        },
        ("<image>?", "a b", None, "a c", None, "0.5"),
    ),
    (
        {"type": "choice", "data": "d"},
        {
            **{"prompt": "?", "options": ["x", "y"], "log_likelihoods": [-2.5, -1.25]},
            **{"reference": "x", "right": False, "right_normalized": True},
        },
        ("?", "y", "x -2.50, y -1.25", "x", False, "wrong"),
    ),
    (
        {"type": "python", "data": "d", "function": "m:f"},
        {"row": '{"a": 1}', "score": 0.25},
        ('{"a": 1}', None, None, None, None, "0.25"),
    ),
    (
        {"type": "lm_eval", "task": "t", "data": {"search": "test"}},
        {"document": 0, "prompt": "Q", "responses": ["42"], "reference": "42", "value": 1.0},
        ("Q", "42", None, "42", True, "right"),
    ),
    (
        {"type": "lm_eval", "task": "t", "data": {"search": "test"}},
        {
            **{"document": 0, "prompt": "Q", "responses": [[-1.5, False], [-2.0, False]]},
            **{"reference": 1, "value": 0.75},
        },
        ("Q", "[[-1.5, false], [-2.0, false]]", None, "1", None, "0.75"),
    ),
]


@pytest.mark.parametrize(("task", "row", "expected"), ROWS)
def test_every_kind_of_task_can_be_read(
    task: dict[str, Any], row: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    given = TypeAdapter(Task).validate_python(task)
    (found,) = side_by_side(runners({"t": given}), "test", {"m": [{"task": "t", **row}]})
    assert astuple(found.answers["m"]) == expected


def test_problems_meet_whatever_their_order(content: dict[str, Any]) -> None:
    tasks, stored = hostile(content, 9)
    stored += stored[:2]  # twice in the data
    asked = side_by_side(tasks, "test", {"one": stored, "other": stored[::-1]})
    assert len(asked) == 11
    assert all(len(problem.answers) == 2 for problem in asked)


def test_an_evaluator_remarks(content: dict[str, Any], tiny: Path) -> None:

    content["tasks"]["words_on"]["stop"] = ["word"]
    engine = load_engine(tiny / "a", EvaluationSpec(device="cpu"))
    evaluation = Evaluator(parse_spec(content)).evaluate(engine, "dev")
    assert evaluation.remarks.keys() == {"words_on"}
    assert "the stop string 'word'" in evaluation.remarks["words_on"]
