"""A study resumes trial for trial with every sampler of the table, and with those of the user.

Covers search.next_trial, too.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from evomerge_optuna.errors import SpecError, StudyChangedError
from evomerge_optuna.search import worker
from evomerge_optuna.search.worker import working
from evomerge_optuna.spec import SamplerSpec, parse_spec
from evomerge_optuna.spec.samplers import SAMPLERS, Sampler
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.schema import BASELINE, RECIPE, REPEATS, RESULT, SPEC, START
from evomerge_optuna.study.studies import MergeStudy, continue_with, open_study

TRIALS = 13  # more than GP and TPE draw at random
Make = Callable[..., MergeStudy]


@pytest.fixture
def make(spec_content: Callable[..., dict[str, Any]], home: Path) -> Make:
    """A study of the tiny models with a sampler."""

    def made(study: str, **parts: Any) -> MergeStudy:
        return create_study(open_store(), parse_spec(spec_content(study=study, **parts)))

    return made


def take(study: MergeStudy, wanted: int, most: int = 99) -> None:
    """Runs trials as a worker does; each is scored by its parameters, not by a model."""
    with working(study) as own:
        for _ in range(most):
            taken = own.next_trials(wanted, load=lambda: None)
            if not taken:
                return
            finish(study, taken[0].trial)


def finish(study: MergeStudy, trial: optuna.Trial, *values: float) -> None:
    """Scores a trial by its parameters, unless these values are given."""
    targets = [objective.target for objective in study.spec.objectives]
    trial.set_user_attr(RECIPE, study.space.suggest(trial).model_dump(mode="json"))
    measures: dict[str, dict[str, float]] = {target: {} for target in targets}
    trial.set_user_attr(RESULT, {"recipe": "", "scores": measures, "costs": {}})
    study.study.tell(trial, values or scores(trial.params)[: len(targets)])


def scores(params: dict[str, Any]) -> list[float]:
    """Two objectives that want different things, to the last digit in whatever order they come."""
    numbers = [hash(v) % 7 / 7 if isinstance(v, str) else float(v) for v in params.values()]
    return [math.fsum((x - at) ** 2 for x in numbers) for at in (0.3, 0.6)]


def leave(study: MergeStudy) -> None:
    """A worker that takes a trial and dies."""
    with working(study) as own:
        assert own.next_trials(TRIALS, load=lambda: None)


def drawn(study: MergeStudy) -> list[dict[str, Any]]:
    """What was tried at each position."""
    trials = study.read()
    return [trial.params for trial in sorted(trials.counted, key=trials.position)]


def spec_of(row: Sampler, tiny: Path, *, alone: bool = False) -> dict[str, Any]:
    """Numbers and lists of choices and several objectives, as far as the sampler takes them."""
    weight = [0, 2] if row.numbers else {"choices": [0, 0.25, 0.5, 1, 1.25, 1.5]}
    merge: dict[str, Any] = {"method": "ties", "weight": weight, "density": 0.5}
    sampler: dict[str, Any] = {"name": row.name, "seed": 3}
    sampler |= {"population": 4} if row.generations else {}
    if alone:
        return {"merge": merge, "models": {"a": str(tiny / "a")}, "sampler": sampler}
    if row.categories:
        merge |= {"normalize": [True, False], "lambda": {"choices": [0.5, 1, 2]}}
    if not row.several:
        return {"merge": merge, "sampler": sampler}
    data = {"search": {"path": str(tiny / "search.jsonl")}}
    tasks = {name: {"type": "perplexity", "data": data} for name in ("words", "others")}
    objectives = [{"minimize": f"{name}.perplexity"} for name in tasks]
    return {"merge": merge, "sampler": sampler, "tasks": tasks, "objectives": objectives}


@pytest.mark.parametrize("alone", [False, True], ids=["several", "alone"])
@pytest.mark.parametrize("row", SAMPLERS.values(), ids=SAMPLERS)
def test_a_study_resumes_trial_for_trial(row: Sampler, alone: bool, make: Make, tiny: Path) -> None:
    parts = spec_of(row, tiny, alone=alone)
    whole, stopped = make("whole", **parts), make("stopped", **parts)
    take(whole, TRIALS)
    for until in (1, 5, 11):
        take(stopped, until)
        leave(stopped)
        stopped = open_study(stopped.store, "stopped")
    take(stopped, TRIALS)
    assert drawn(stopped) == drawn(whole)
    assert sum(REPEATS in t.user_attrs for t in stopped.study.trials) == 3
    there_are = TRIALS if row.numbers or not alone else 6
    assert len({str(params) for params in drawn(whole)}) > 0.7 * there_are


@pytest.mark.parametrize("kind", ["postgres", "proxy of postgres"])
@pytest.mark.parametrize("name", ["gp", "nsga2", "catcma"])
def test_choices_are_stored_and_resumed_in_postgresql(
    name: str, kind: str, database: Callable[[str], str], spec_content: Any, home: Path
) -> None:
    """Strings, booleans and numbers, as a database keeps them."""
    choices = {"choices": [0.25, 0.5, 1]}
    merge = {"method": ["ties", "della"], "include": "search", "normalize": [True, False]}
    merge |= {"weight": choices, "density": choices, "lambda": choices}
    spec = parse_spec(spec_content(merge=merge, sampler={"name": name, "seed": 3}))
    here, there = (
        create_study(open_store(url), spec) for url in (database("sqlite"), database(kind))
    )
    take(here, TRIALS)
    take(there, 5)
    take(open_study(there.store, there.name), TRIALS)
    assert drawn(there) == drawn(here)
    assert {type(value) for params in drawn(there) for value in params.values()} == {
        str,
        bool,
        float,
    }
    recipes = [trial.user_attrs[RECIPE] for trial in there.trials()]
    assert recipes == [trial.user_attrs[RECIPE] for trial in here.trials()]


def test_brute_force_tries_each_combination_once(make: Make, tiny: Path) -> None:
    study = make("all", **spec_of(SAMPLERS["brute_force"], tiny, alone=True))
    take(study, 3)
    leave(study)
    take(study, 6)
    assert sorted(params["a.weight.g0"] for params in drawn(study)) == [0, 0.25, 0.5, 1, 1.25, 1.5]
    take(study, 8)  # any again


@pytest.mark.parametrize(
    ("name", "merge", "said"),
    [
        ("cmaes", {"normalize": [True, False]}, "CMA-ES searches numbers alone, and merge.normal"),
        ("brute_force", {}, "brute force tries every combination of choices, and a.weight.g0"),
    ],
)
def test_a_kind_of_parameter_that_a_sampler_does_not_know_is_refused(
    name: str, merge: dict[str, Any], said: str, make: Make
) -> None:
    with pytest.raises(SpecError, match=said):
        make("refused", merge={"method": "ties", **merge}, sampler={"name": name})


@pytest.mark.parametrize("name", [row.name for row in SAMPLERS.values() if not row.several])
def test_a_sampler_of_one_objective_refuses_several(name: str, make: Make, tiny: Path) -> None:
    parts = spec_of(SAMPLERS["gp"], tiny) | {"sampler": name}
    with pytest.raises(SpecError, match="takes exactly one objective, here are 2"):
        make("refused", **parts)


def test_a_population_is_for_samplers_with_generations() -> None:
    with pytest.raises(ValueError, match="GP has no generations; remove it"):
        SamplerSpec(name="gp", population=4)


@pytest.mark.parametrize("row", SAMPLERS.values(), ids=SAMPLERS)
def test_a_search_goes_on_from_its_starts(row: Sampler, make: Make, tiny: Path) -> None:
    """Stopped between them and after them; those that begin at the best of them store it.

    Of a quarter of the trials here three are starts, and the baseline is a trial, too.
    """
    parts = spec_of(row, tiny) | {"starts": True, "trials": 12}
    whole, stopped = make("whole", **parts), make("stopped", **parts)
    take(whole, 9)
    for until in (2, 5, 7):
        take(stopped, until)
        leave(stopped)
        stopped = open_study(stopped.store, "stopped")
    take(stopped, 9)
    assert drawn(stopped) == drawn(whole)
    given = [t for t in whole.trials() if BASELINE in t.user_attrs]
    names = [trial.user_attrs[BASELINE] for trial in given]
    alone = ["source a", "source b", "all at 1"]  # where a source model at 1 is itself
    with_sources = row.generations and not row.begins_at_start
    assert names == [
        "uniform merge",
        *(alone if with_sources else ["all at 1", "a at 1", "b at 1"]),
    ]
    if row.begins_at_start:
        best = min(given, key=lambda trial: trial.values)
        assert whole.start == best.params
        assert open_study(whole.store, "whole").attributes()[START] == best.params


def test_cmaes_draws_around_the_best_start(make: Make) -> None:
    merge = {"method": "ties", "weight": [0, 2], "density": 0.5}
    study = make("near", merge=merge, starts=True, trials=16, sampler={"seed": 1, "population": 40})
    take(study, 45)
    start = study.start
    assert start == {"a.weight.g0": 0.5, "b.weight.g0": 0.5}
    for name in start:
        found = [t.params[name] for t in study.trials() if BASELINE not in t.user_attrs]
        assert sum(found) / len(found) == pytest.approx(0.5, abs=0.15)


def test_the_search_begins_once_all_starts_are_scored(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of them runs with another worker, and is the best."""
    monkeypatch.setattr(worker, "_POLL", 0)
    study = make("shared", starts=True, trials=4, sampler="cmaes")
    looks = iter([False, False, True])
    said: list[str] = []
    with working(study) as other, working(study) as own:
        take(study, 1)
        (last,) = other.next_trials(4, load=lambda: None)
        assert not own.next_trials(4, load=lambda: None, is_over=looks.__next__, say=said.append)
        assert said == ["waiting for the first trials, which are with other workers"]
        finish(study, last.trial, -1.0)
        (drawn,) = own.next_trials(4, load=lambda: None)
    assert BASELINE not in drawn.trial.user_attrs
    assert study.start == last.trial.params


def test_a_study_of_an_earlier_version_has_no_starts(make: Make, home: Path) -> None:
    study = make("earlier")
    spec = dict(study.attributes()[SPEC])
    del spec["starts"]
    study.study.set_user_attr(SPEC, spec)
    stored = open_study(study.store, "earlier")
    assert not stored.spec.starts and stored.start is None
    given = parse_spec(dict(spec))
    assert given.starts and not continue_with(stored, given).spec.starts
    with pytest.raises(StudyChangedError, match="starts"):
        continue_with(stored, parse_spec({**spec, "starts": True}))
