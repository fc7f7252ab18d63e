"""Names under which something is stored stand in study.schema and nowhere else."""

import re
from pathlib import Path

import evomerge_optuna
from evomerge_optuna.study import schema

PACKAGE = Path(evomerge_optuna.__file__).parent
OWNERS = {"study/schema.py", "store/optuna_internals.py"}


def names() -> dict[str, str]:
    return {n: v for n, v in vars(schema).items() if n.isupper() and isinstance(v, str)}


def test_no_name_is_spelled_elsewhere() -> None:
    spelled = re.compile(
        r"""(user|system)_attrs?(\.get)?[\[(]\s*f?["']"""  # trial.user_attrs["recipe"]
        r"""|set_(user|(study|trial)_)?(user_|system_)?(attr|attribute)\([^"'()\n]*["']"""
        r"""|(user|system)_attrs\s*=\s*{\s*["']"""  # create_trial(user_attrs={"recipe": ...})
        r"""|["']\w+["'] (not )?in \w+\.(user|system)_attrs"""
    )
    found = [
        f"{name}: {match[0]}"
        for file in PACKAGE.rglob("*.py")
        if (name := str(file.relative_to(PACKAGE))) not in OWNERS
        for match in spelled.finditer(file.read_text())
    ]
    assert found == []


def test_no_constant_is_defined_twice() -> None:
    found = [
        f"{name}: {constant}"
        for file in PACKAGE.rglob("*.py")
        if (name := str(file.relative_to(PACKAGE))) not in OWNERS
        for constant, value in names().items()
        if re.search(rf"""^\w+ = ["']{re.escape(value)}["']""", file.read_text(), re.MULTILINE)
    ]
    assert found == []


def test_no_two_names_are_alike() -> None:
    values = list(names().values())
    assert len(set(values)) == len(values)


def test_names_are_those_of_earlier_versions() -> None:
    """Studies have them: one that is renamed is lost to them."""
    assert set(names().values()) == {
        *("spec", "versions", "layers", "fingerprints", "data", "prompts", "day", "identity"),
        *("start", "final:", "outcomes:", "worker", "recipe", "result", "baseline", "same_as"),
        *("stopped_after", "error", "interrupted", "repeats", "died_at", "place", "given_up"),
        *("cma:idle", "cma:generation", "cma:drawn", "score:", "finalist:", "unsearched"),
    }
    assert schema.TRIAL_ANSWERS == {"search": "problems.jsonl", "dev": "problems-dev.jsonl"}
    assert schema.final_answers("test", "0123456789abcdef") == (
        "answers-test-",
        "-0123456789ab.jsonl",
    )
