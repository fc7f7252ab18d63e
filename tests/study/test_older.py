"""Studies that an earlier version made open, go on, are tested and exported as it would have.

See tests/data/older/make.py. Covers study.schema, too: what is stored keeps its name.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna import export, run_study
from tests.data.older import make
from tests.older import FILES, STUDIES, command
from tests.older import older as older


@cache
def continued() -> dict[str, Any]:
    """What the version that made the studies made of them when it went on."""
    return json.loads((FILES / "continued.json").read_text())


def test_all_are_listed(older: Path) -> None:
    listed = {row["name"]: row for row in json.loads(command("study", "list", "--json"))}
    assert listed.keys() == set(STUDIES)
    for name in STUDIES:
        finished = [t for t in make.record()[name] if t["state"] in ("COMPLETE", "FAIL")]
        assert listed[name]["trials"] == len(finished)


def test_answers_and_scores_that_are_stored_are_found(older: Path) -> None:
    shown = json.loads(command("study", "show", "merge", "--json"))
    assert "it was enqueued with a.weight.g0 = 9.0" in json.dumps(shown["trials_by_number"])
    names = ["a", "b", "uniform merge", "trial 2"]
    assert list(shown["final"]) == names
    for split in ("search", "dev", "test"):
        lines = command("study", "answers", "merge", "--split", split, "--json").splitlines()
        assert {json.loads(line)["model"] for line in lines} == set(names)


@pytest.mark.parametrize("name", STUDIES)
def test_it_goes_on_as_the_earlier_version_would_have(name: str, older: Path) -> None:
    wanted = continued()[name]
    begun = [t for t in make.record()[name] if t["state"] in ("COMPLETE", "FAIL")]
    assert begun == wanted["trials"][: len(begun)]
    run_study(name, make.URL, trials=14)
    trials = make.record()[name]
    assert len(trials) == len(wanted["trials"])
    for found, before in zip(trials, wanted["trials"], strict=True):
        _assert_same_trial(found, before)
    which = "knee" if name == "both" else "best"
    final = json.loads(command("study", "test", name, "--trial", which, "--json"))
    assert _rounded(final) == _rounded(wanted["final"])
    assert export(name, "out", make.URL, trial=2) == wanted["exported_trial_2"]
    assert export(name, "best", make.URL, trial=which) in _digests(trials)


def _assert_same_trial(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    found["attributes"].get("result", {}).pop("dev_quarters", None)  # which it did not note
    if found["params"] != wanted["params"]:  # by a last digit, on another processor
        assert found["params"] == pytest.approx(wanted["params"], rel=1e-9)
        found, wanted = _without_digests(found), _without_digests(wanted)
    # Scipy's Wilson intervals differ from those of the earlier version by a last digit.
    assert _rounded(found) == _rounded(wanted)


def _without_digests(trial: dict[str, Any]) -> dict[str, Any]:
    attributes = dict(trial["attributes"])
    if "result" in attributes:
        attributes["result"] = {**attributes["result"], "recipe": "", "sha256": ""}
    return {**trial, "params": {}, "attributes": attributes}


def _rounded(content: Any) -> Any:
    """A JSON document whose numbers have nine digits."""
    if isinstance(content, dict):
        return {key: _rounded(part) for key, part in content.items()}
    if isinstance(content, list):
        return [_rounded(part) for part in content]
    return round(content, 9) if isinstance(content, float) else content


def _digests(trials: list[dict[str, Any]]) -> list[str]:
    return [t["attributes"]["result"]["sha256"] for t in trials if "result" in t["attributes"]]
