"""A study resumes trial for trial with every sampler of the table, and with those of the user.

Covers search.next_trial, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.search.worker import working
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.spec.samplers import SAMPLERS
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import RECIPE, REPEATS, RESULT
from evomerge_optuna.study.studies import MergeStudy, open_study

TRIALS = 16  # more than GP and TPE draw at random
Make = Callable[..., MergeStudy]


@pytest.fixture
def make(spec_content: Callable[..., dict[str, Any]], home: Path) -> Make:
    """A study of the tiny models with a sampler."""

    def made(study: str, **parts: Any) -> MergeStudy:
        return create_study(open_store(), parse_spec(spec_content(study=study, **parts)))

    return made


def take(study: MergeStudy, wanted: int, most: int = 99) -> None:
    """Runs trials as a worker does; each is scored by its parameters, not by a model."""
    targets = [objective.target for objective in study.spec.objectives]
    with working(study) as worker:
        for _ in range(most):
            taken = worker.next_trial(wanted, load=lambda: None)
            if taken is None:
                return
            recipe = study.space.suggest(taken.trial)
            taken.trial.set_user_attr(RECIPE, recipe.model_dump(mode="json"))
            values = scores(taken.trial.params)[: len(targets)]
            measures = dict.fromkeys(targets, {})
            taken.trial.set_user_attr(RESULT, {"recipe": "", "scores": measures, "costs": {}})
            study.study.tell(taken.trial, values)


def scores(params: dict[str, Any]) -> list[float]:
    """Two objectives that want different things."""
    numbers = [hash(v) % 7 / 7 if isinstance(v, str) else float(v) for v in params.values()]
    return [sum((x - at) ** 2 for x in numbers) for at in (0.3, 0.6)]


def leave(study: MergeStudy) -> None:
    """A worker that takes a trial and dies."""
    with working(study) as worker:
        assert worker.next_trial(TRIALS, load=lambda: None) is not None


def drawn(study: MergeStudy) -> list[dict[str, Any]]:
    """What was tried at each position."""
    trials = study.read()
    return [trial.params for trial in sorted(trials.counted, key=trials.position)]


NUMBERS = {"merge": {"method": "ties", "layer_group_size": 2, "weight": [0, 2]}}
ONE = {"merge": {"method": "linear", "weight": [0, 1]}, "models": ["a"]}
SPACES = {"numbers": NUMBERS}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_study_resumes_trial_for_trial(name: str, space: str, make: Make) -> None:
    parts = {**SPACES[space], "sampler": {"name": name, "seed": 3}}
    whole, stopped = make("whole", **parts), make("stopped", **parts)
    take(whole, TRIALS)
    for until in (1, 5, 12):
        take(stopped, until)
        leave(stopped)
        stopped = open_study(stopped.store, "stopped")
    take(stopped, TRIALS)
    for position, (found, wanted) in enumerate(zip(drawn(stopped), drawn(whole), strict=True)):
        assert found == wanted, position
    assert sum(REPEATS in t.user_attrs for t in stopped.study.trials) == 3
    assert len({str(params) for params in drawn(whole)}) > TRIALS / 2
