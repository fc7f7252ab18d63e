"""A spec names a sampler by its class: Optuna's, or the user's own."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge_optuna import create_study
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.search.samplers import check_sampler
from evomerge_optuna.spec import SamplerSpec, parse_spec
from evomerge_optuna.spec.samplers import SAMPLERS
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.schema import REPEATS
from evomerge_optuna.study.studies import exists, open_study
from tests.conftest import CommandLine
from tests.search.test_every_sampler import Make, drawn, leave, spec_of, take
from tests.search.test_every_sampler import make as make

OWN = """
from optuna.samplers import RandomSampler

class Corners(RandomSampler):
    def __init__(self, low=0.0, seed=None):
        super().__init__(seed=seed)
        self.low = low

    def sample_independent(self, study, trial, name, distribution):
        drawn = super().sample_independent(study, trial, name, distribution)
        return distribution.high if drawn > 0.5 else max(self.low, distribution.low)
"""
GRID = {"search_space": {f"{alias}.weight.g0": [0.0, 0.5, 1.0] for alias in "ab"}}


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("optuna.samplers:TPESampler", {"multivariate": False, "n_startup_trials": 3}),
        ("optuna.samplers:CmaEsSampler", {"popsize": 4}),
        ("optuna.samplers:GridSampler", GRID),
    ],
)
def test_a_study_resumes_trial_for_trial(kind: str, arguments: dict[str, Any], make: Make) -> None:
    allow([kind])
    parts = {
        "merge": {"method": "ties", "weight": [0, 1], "density": 0.5},
        "sampler": {"class": kind, "arguments": arguments, "seed": 5},
    }
    whole, stopped = make("whole", **parts), make("stopped", **parts)
    take(whole, 9)
    for until in (1, 4, 7):
        take(stopped, until)
        leave(stopped)
        stopped = open_study(stopped.store, "stopped")
    take(stopped, 9)
    assert drawn(stopped) == drawn(whole)
    assert sum(REPEATS in t.user_attrs for t in stopped.study.trials) == 3
    assert len({str(params) for params in drawn(whole)}) > 5


def test_of_a_stored_study_it_is_run_where_it_is_allowed(
    command_line: CommandLine, tmp_path: Path, spec_content: Any
) -> None:
    (tmp_path / "corners.py").write_text(OWN)
    sampler = {"class": "corners:Corners", "arguments": {"low": 0.25}}
    merge = {"method": "ties", "weight": [0, 1.5], "density": 0.5}
    content = spec_content(sampler=sampler, merge=merge, trials=4)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    command_line.run("study", "run", "own.yaml", "--trials", "3")
    _, said = command_line.run("study", "run", "tiny", code=2)
    assert "sampler.class: the spec comes from the database and would run the code of corners" in (
        re.sub(r"\s+", " ", said)
    )
    command_line.run("study", "run", "tiny", "--allow-code")
    trials = command_line.show("tiny")["trials_by_number"]
    found = {value for trial in trials[3:] for value in trial["parameters"].values()}
    assert found <= {0.25, 1.5}


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"class": "optuna.samplers:None_"}, "has no function 'None_'"),
        ({"class": "optuna.samplers:BaseGASampler", "arguments": {"x": 1}}, "cannot be made of"),
        ({"class": "json:loads"}, "json:loads is no class of Optuna's samplers"),
    ],
)
def test_what_is_no_sampler_is_refused(sampler: dict[str, Any], said: str) -> None:
    spec = SamplerSpec.model_validate(sampler)
    allow([sampler["class"]])
    with pytest.raises(SpecError, match=re.escape(said)):
        check_sampler(spec)


def test_the_class_is_tried_when_a_study_is_created(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec_content: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "from optuna.samplers import RandomSampler\n"
    code += "class Seedless(RandomSampler):\n    def __init__(self):\n        super().__init__()\n"
    (tmp_path / "seedless.py").write_text(code)
    for kind in ("json:loads", "nothing_here:Sampler"):
        with pytest.raises(SpecError, match=r"sampler\.class: "):
            create_study(spec_content(sampler={"class": kind}))
    said: list[str] = []
    create_study(spec_content(sampler={"class": "seedless:Seedless"}), say=said.append)
    assert any("seedless:Seedless takes no seed" in line for line in said)
    seeded = {"class": "optuna.samplers:TPESampler"}
    create_study(spec_content(study="seeded", sampler=seeded), say=said.append)
    assert sum("takes no seed" in line for line in said) == 1


def test_a_class_that_cannot_draw_a_trial_of_the_study_is_refused(
    home: Path, spec_content: Any, tiny: Path
) -> None:
    two = spec_of(SAMPLERS["gp"], tiny) | {"merge": {"method": "ties", "weight": [0, 1]}}
    with pytest.raises(SpecError, match=r"sampler\.class: .*CmaEsSampler cannot draw a trial of"):
        create_study(spec_content(**two | {"sampler": {"class": "optuna.samplers:CmaEsSampler"}}))
    assert not exists(open_store(), "tiny")
    create_study(spec_content(**two | {"sampler": {"class": "optuna.samplers:NSGAIISampler"}}))
    grid = {"class": "optuna.samplers:GridSampler", "arguments": {"search_space": {"x": [1]}}}
    with pytest.raises(SpecError, match=r"GridSampler cannot draw .*weight.g0"):
        create_study(spec_content(study="grid", sampler=grid))


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ({"arguments": {"x": 1}}, "arguments: are those of a class"),
        ({"name": "gp", "class": "a:B"}, "write name or class, not both"),
        ({"class": "a:B", "arguments": {"seed": 1}}, "every trial has its own"),
        ({"class": "a:B", "population": 4}, "a:B has no generations"),
    ],
)
def test_a_spec_that_says_too_much_is_refused(
    sampler: dict[str, Any], said: str, spec_content: Any
) -> None:
    with pytest.raises(SpecError, match=re.escape(said)):
        parse_spec(spec_content(sampler=sampler))


def test_a_spec_is_stored_and_read_as_it_was(spec_content: Any) -> None:
    given = {"class": "a:B", "arguments": {"x": [1, {"y": None}]}, "seed": 4}
    spec = parse_spec(spec_content(sampler=given))
    stored = spec.model_dump(mode="json", by_alias=True)
    assert parse_spec(stored) == spec
    assert stored["sampler"] == given | {"population": None}
    assert "class" not in parse_spec(spec_content()).model_dump(by_alias=True)["sampler"]
