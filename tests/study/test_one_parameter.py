"""One searched parameter is a search."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy, open_study


@pytest.fixture
def make(
    spec_content: Callable[..., dict[str, Any]], home: Path, tiny: Path
) -> Callable[..., MergeStudy]:
    """A study of one source model's weight."""

    def made(study: str, **sampler: Any) -> MergeStudy:
        parts = {
            "models": {"a": str(tiny / "a")},
            "merge": {"method": "ties", "weight": [0, 2], "density": 0.5},
            "sampler": {"seed": 1, "population": 4, **sampler},
        }
        return create_study(open_store(), parse_spec(spec_content(study=study, **parts)))

    return made


@pytest.mark.parametrize("sampler", ["cmaes", "nsga2", "nsga3"])
def test_one_parameter_is_searched_and_resumed(
    make: Callable[..., MergeStudy], sampler: str
) -> None:
    whole, parts = make("whole", name=sampler), make("parts", name=sampler)
    run_trials(whole, 12)
    run_trials(parts, 7)
    run_trials(open_study(parts.store, "parts"), 12)
    describe_study(whole)
    values = [trial.params for trial in whole.trials()]
    assert [len(found) for found in values] == [1] * 12
    assert [trial.params for trial in parts.trials()] == values
    assert len({*map(str, values)}) > 7
