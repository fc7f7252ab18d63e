"""`sampler: auto` is a sampler that is chosen once, told in a line, and stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.auto_sampler import with_sampler
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import continue_with, open_study

Content = Callable[..., dict[str, Any]]


def test_it_is_chosen_when_a_study_is_created(spec_content: Content, home: Path) -> None:
    said: list[str] = []
    spec = parse_spec(spec_content(sampler="auto", trials=40))
    study = create_study(open_store(), spec, said.append)
    (line,) = [line for line in said if line.startswith("auto")]
    assert line.startswith("auto: gp, since 40 trials of 8 parameters are few enough")
    stored = open_study(study.store, "tiny")
    assert stored.spec.sampler.name == "gp"
    # More trials than it would choose it for, by the same file.
    later = parse_spec(spec_content(sampler={"name": "auto"}, trials=4000))
    assert continue_with(stored, later).spec.sampler.name == "gp"


@pytest.mark.parametrize(
    ("parts", "chosen"),
    [
        ({}, "cmaes"),
        ({"merge": {"method": "ties", "normalize": [True, False]}}, "catcma"),
        ({"constraints": ["words.perplexity <= 9"]}, "nsga2"),
        ({"trials": 500}, "gp"),
    ],
)
def test_what_is_chosen_for_many_trials(
    parts: dict[str, Any], chosen: str, spec_content: Content
) -> None:
    spec = parse_spec(spec_content(**{"sampler": "auto", "trials": 5000, **parts}))
    found, why = with_sampler(spec, {"base_model": 4, "models.a": 4, "models.b": 4})
    assert found.sampler.row.name == chosen and why is not None


def test_a_named_sampler_stays(spec_content: Content) -> None:
    spec = parse_spec(spec_content())
    assert with_sampler(spec, {}) == (spec, None)


def test_a_population_is_no_matter_of_auto(spec_content: Content) -> None:
    with pytest.raises(SpecError, match="population: auto may choose"):
        parse_spec(spec_content(sampler={"name": "auto", "population": 4}))
