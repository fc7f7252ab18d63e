"""Problems from local files; what is missing or doubled is named."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.evaluation.tasks.generate import judge
from evomerge_optuna.spec import parse_spec

Content = Callable[..., dict[str, Any]]


def task(spec_content: Content, **parts: Any) -> Any:
    settings = {"type": "generate", "prompt": "Q: {question}", **parts}
    spec = parse_spec(spec_content(tasks={"t": settings}, objectives=[{"maximize": "t.accuracy"}]))
    return spec.tasks["t"]


def problems(found: Any) -> list[Problem]:
    return runners({"t": found})["t"].problems("search")


@pytest.mark.parametrize(
    ("name", "text", "source"),
    [
        ("data.tsv", "三たす五は？\t8\n十は？\t10\n", {"columns": ["question", "answer"]}),
        ("[a]*?.tsv", "question\tanswer\n三たす五は？\t8\n十は？\t10\n", {}),
        ("data.csv", "question,answer\n三たす五は？,8\n十は？,10\n", {}),
        ("data.jsonl", '{"question": "三たす五は？", "n": 8}\n{"question": "十は？", "n": 10}\n',
         {"answer": "n"}),
    ],
)  # fmt: skip
def test_local_files(
    spec_content: Content, tmp_path: Path, name: str, text: str, source: dict[str, Any]
) -> None:
    (tmp_path / name).write_text(text)
    found = task(spec_content, data={"search": {"path": str(tmp_path / name), **source}})
    assert problems(found) == [
        Problem("Q: 三たす五は？", "8"),
        Problem("Q: 十は？", "10"),
    ]


def test_a_quote_in_a_tsv_file_is_a_character(spec_content: Content, tmp_path: Path) -> None:
    file = tmp_path / "data.tsv"
    file.write_text('question\tanswer\n"Two\t2\nthree\t3\nfour"\t4\n')
    found = task(spec_content, data={"search": {"path": str(file)}})
    assert problems(found) == [
        Problem('Q: "Two', "2"),
        Problem("Q: three", "3"),
        Problem('Q: four"', "4"),
    ]


def test_a_file_of_the_form_of_mgsm(spec_content: Content, tmp_path: Path) -> None:
    file = tmp_path / "mgsm_ja.tsv"
    file.write_text('“8万”ドルは？\t80,000\n残りは"何個"？\t-3\n半分は？\t1,234.5\n')
    source = {"path": str(file), "columns": ["question", "answer"]}
    found = task(spec_content, data={"search": source}, scorer="last_number", language="ja")
    check_data(runners({"t": found}))
    wanted = ["80000", "-3", "1234.5"]
    right = ["答えは8万ではなく80000です", "答えは−３個です", "答えは１，２３４．５です"]
    for problem, number, text in zip(problems(found), wanted, right, strict=True):
        assert judge("t", found, problem, text).found == number
        assert judge("t", found, problem, text).match == 1


@pytest.mark.parametrize(
    ("search", "test", "same"),
    [
        ("リンゴは３個？", "リンゴは3個?", True),
        ("ﾘﾝｺﾞは  三個", "リンゴは 三個\t", True),
        ("5個は？", "6個は？", False),
    ],
)
def test_what_one_task_searches_on_no_task_tests_on(
    spec_content: Content, tmp_path: Path, search: str, test: str, same: bool
) -> None:
    for name, question in (("a", search), ("b", test), ("c", "別の問題？")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": question, "answer": 1}))
    a, b, c = ({"path": str(tmp_path / f"{name}.jsonl")} for name in "abc")
    tasks = {
        "one": task(spec_content, data={"search": a}),
        "two": task(spec_content, data={"search": c, "test": b}, prompt="質問：{question} 答え："),
    }
    if same:
        with pytest.raises(SpecError) as error:
            check_data(runners(tasks))
        assert "tasks.two.data: a problem of search of tasks.one occurs again in test" in str(
            error.value
        )
    else:
        check_data(runners(tasks))
    check_data(runners({"one": tasks["one"], "the same": tasks["one"]}))


def test_the_shots_of_one_task_are_tested_on_by_none(spec_content: Content, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": name, "answer": 1}))
    a, b = ({"path": str(tmp_path / f"{name}.jsonl")} for name in "ab")
    shown = task(spec_content, data={"search": b}, shots=[{"question": "a", "answer": 1}])
    check_data(runners({"one": shown, "two": task(spec_content, data={"search": a})}))
    tested = task(spec_content, data={"search": b, "test": a})
    with pytest.raises(SpecError, match=r"of the shots of tasks\.one occurs again in test"):
        check_data(runners({"one": shown, "two": tested}))


def test_a_slice_of_a_file(spec_content: Content, tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("question,answer\n" + "".join(f"q{i},{i}\n" for i in range(10)))
    found = task(spec_content, data={"search": {"path": str(file), "split": "train[2:4]"}})
    assert [p.reference for p in problems(found)] == ["2", "3"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"search": {"path": "/nowhere/x.csv"}}, "tasks.t.data.search: there is no file /nowhere"),
        ({"search": {"path": "/" + "x" * 5000}}, "is not a local file"),
        ({"search": {"path": "{root}/columns.csv"}}, "has no column 'question'; it has text"),
        ({"search": {"path": "{root}/empty.csv"}}, "tasks.t.data.search: "),
        ({"search": {"path": "zoo:problems", "split": "all"}}, "has the splits search, dev, test"),
        ({"search": {"path": "{root}/words.csv"}}, "the answer 'eight' has no number"),
        (
            {"search": {"path": "{root}/a.csv"}, "test": {"path": "{root}/a.csv"}},
            "a problem of search occurs again in test: 'Q: three?'; splits must not overlap",
        ),
    ],
)
def test_bad_data(
    spec_content: Content, tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    (tmp_path / "columns.csv").write_text("text,answer\nx,1\n")
    (tmp_path / "empty.csv").write_text("question,answer\n")
    (tmp_path / "words.csv").write_text("question,answer\nthree plus five?,eight\n")
    (tmp_path / "a.csv").write_text("question,answer\nthree?,3\n")
    located = {
        split: {**source, "path": source["path"].replace("{root}", str(tmp_path))}
        for split, source in data.items()
    }
    with pytest.raises(SpecError) as error:
        check_data(runners({"t": task(spec_content, data=located)}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


QUESTIONS = "question,answer\nthree?,3\nfour?,four\n"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"shots": [{"question": "three?", "answer": 3}]}, "a problem of the shots occurs again"),
        (
            {"shots": {"path": "{root}/q.csv", "n": 1}},
            "a problem of the shots occurs again in sear",
        ),
        ({"shots": [{"q": "two?", "answer": 2}]}, "t.shots[0] has no column 'question'; it has "),
        ({"shots": [{"question": "two?"}]}, "t.shots[0] has no column 'answer'; it has question"),
        ({"scorer": "last_number"}, "the answer 'four' has no number; name the right column as"),
    ],
)
def test_bad_shots_and_answers(
    spec_content: Content, tmp_path: Path, parts: dict[str, Any], message: str
) -> None:
    (tmp_path / "q.csv").write_text(QUESTIONS)
    located = yaml.safe_load(yaml.safe_dump(parts).replace("{root}", str(tmp_path)))
    found = task(spec_content, data={"search": {"path": str(tmp_path / "q.csv")}}, **located)
    with pytest.raises(SpecError) as error:
        check_data(runners({"t": found}))
    assert message in str(error.value)


def test_fingerprints_are_of_problems_options_and_shots(
    spec_content: Content, tmp_path: Path
) -> None:
    (tmp_path / "q.csv").write_text("question,answer,no\nthree?,3,0\nfour?,4,1\n")
    data = {"search": {"path": str(tmp_path / "q.csv")}}
    plain = fingerprint_data(runners({"t": task(spec_content, data=data)}))
    # As studies have stored it from the first version on.
    rows = [["Q: three?", "3"], ["Q: four?", "4"]]
    assert plain == {"tasks.t.data.search": hashlib.sha256(json.dumps(rows).encode()).hexdigest()}
    shots = [{"question": "two?", "answer": 2}]
    shot = fingerprint_data(runners({"t": task(spec_content, data=data, shots=shots)}))
    assert shot.keys() == {"tasks.t.data.search", "tasks.t.shots"} and plain.items() <= shot.items()
    choices = [
        fingerprint_data(
            runners(
                {"t": task(spec_content, type="choice", data=data, answer="no", options=options)}
            )
        )
        for options in (["3", "4"], ["3", "5"], ["3", "4"])
    ]
    assert choices[0] == choices[2] != choices[1]
