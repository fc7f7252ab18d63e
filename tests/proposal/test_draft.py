"""Drafts are YAML that says what they hold, and comments that change nothing.

Covers proposal.names, too.
"""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.proposal.draft import Draft
from evomerge_optuna.proposal.names import alias, plain, seen_from, unlike

WORDS = st.text("aä,:#'\"{}[]- \n\\0é&*!|>%@`", max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcd", min_size=1), VALUES, min_size=1, max_size=4))
def test_what_is_written_is_read_back(content: dict[str, object]) -> None:
    notes = {key: "a note" for key, value in content.items() if not isinstance(value, dict)}
    draft = Draft(content, ("head",), notes, dict.fromkeys(content, ("an offer",)))
    assert yaml.safe_load(draft.text()) == content


def test_it_looks_as_a_person_writes_it() -> None:
    draft = Draft(
        {
            "models": {"a": "./a"},
            "merge": {"weight": [0, 2]},
            "sampler": {"name": "auto", "seed": 0},
            "tasks": {"t": {"data": {"search": {"path": "d.csv", "split": "train[:5]"}}}},
            "objectives": [{"maximize": "t.accuracy"}],
        },
        ("What it is.",),
        {"merge.weight": "of each"},
        {"merge": ("more: 1",)},
    )
    assert draft.text() == (
        "# What it is.\n"
        "models:\n"
        "  a: ./a\n"
        "merge:\n"
        "  weight: [0, 2]  # of each\n"
        "  # more: 1\n"
        "sampler: {name: auto, seed: 0}\n"
        "tasks:\n"
        "  t:\n"
        "    data:\n"
        '      search: {path: d.csv, split: "train[:5]"}\n'
        "objectives:\n"
        "  - maximize: t.accuracy\n"
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("./models/ja-7b/", "ja-7b"),
        ("org/Model.v1", "Model_v1"),
        ("base+./adapters/es", "es"),
        ("zoo:ja", "ja"),
        ("./paint.safetensors@org/pipeline", "paint"),
        ("./base", "base_2"),
        ("日本語", "model"),
    ],
)
def test_names_of_models(model: str, name: str) -> None:
    assert alias(model) == name


def test_names_are_told_apart() -> None:
    assert alias("x/a", ["a", "a_2"]) == "a_3"
    assert unlike("a", []) == "a" and plain("a b/c") == "a_b_c"


def test_paths_are_as_the_specs_folder_sees_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    assert seen_from(tmp_path, "a") == "./a"
    assert seen_from(tmp_path / "specs", "a+a") == "../a+../a"
    assert seen_from(tmp_path, "org/a") == "org/a"
