"""The zoo's problems: right answers, splits of the promised sizes, no problem in two of them."""

import random
from collections import Counter

from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.evaluation.language import is_language
from evomerge_optuna.zoo.problems import (
    OPERATORS,
    draw_problem,
    facts,
    held_out,
    held_out_keys,
    load_problems,
    problem_rows,
)


def test_splits() -> None:
    problems = load_problems()
    assert {name: len(split) for name, split in problems.items()} == {
        "search": 200,
        "dev": 200,
        "test": 500,
    }
    keys = [p.key for split in held_out().values() for p in split]
    assert len(set(keys)) == len(keys) == len(held_out_keys())
    for split in problems.values():
        counts = Counter(split["operator"])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_answers_are_right_and_in_their_language() -> None:
    for row in load_problems()["search"]:
        result = {"+": row["a"] + row["b"], "-": row["a"] - row["b"], "*": row["a"] * row["b"]}
        assert row["answer"] == str(result[row["operator"]])
        assert last_number(row["solution"]) == result[row["operator"]]
        assert is_language(row["solution"], "ja")


def test_english_is_not_taken_for_japanese() -> None:
    rng = random.Random(0)
    for _ in range(50):
        problem = draw_problem(rng)
        assert not is_language(problem.answer("en"), "ja")
        assert last_number(problem.answer("en")) == problem.result
        assert problem.result >= 1


def test_facts_are_all_that_a_problem_can_ask_for() -> None:
    rng = random.Random(0)
    drawn = {(p.a, p.operator, p.b) for p in (draw_problem(rng) for _ in range(5000))}
    assert drawn == set(facts(OPERATORS))
    assert Counter(operator for _, operator, _ in facts(OPERATORS)) == {"+": 81, "-": 36, "*": 81}


def test_rows_are_those_of_the_data_set() -> None:
    for split, problems in load_problems().items():
        assert problem_rows(split) == list(problems)
