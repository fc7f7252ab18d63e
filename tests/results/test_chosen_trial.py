"""Which trial is a study's result: dev chooses among the best few on search.

Covers results.final_scores and results.final_scorer, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.engines.candidates import Builder
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.report.notes import study_note
from evomerge_optuna.report.tables import study_json
from evomerge_optuna.results.chosen_trial import (
    FINALISTS,
    chosen_trial,
    finalists,
    find_trial,
    is_chosen_on_dev,
    without_dev_score,
)
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import recipe_of
from tests.conftest import SpecMaker


@pytest.fixture
def store(home: Path) -> Store:
    return open_store()


def test_dev_chooses_among_the_best_on_search(store: Store, make_spec: SpecMaker) -> None:
    study = create_study(store, make_spec(sampler={"seed": 2, "population": 4}))
    run_trials(study, 7)
    ranked = study.ranked()
    study.study.enqueue_trial(ranked[0].params)  # the same recipe is a finalist once
    run_trials(study, 8)
    assert finalists(study) == ranked[:FINALISTS]
    assert chosen_trial(study) == find_trial(study, "best") == study.best() == ranked[0]
    assert without_dev_score(study)

    builder, evaluator = Builder(study.spec.evaluation), Evaluator(study.spec)

    def on_dev(number: int) -> float:
        engine = builder.build(recipe_of(study.trials()[number])).engine
        scores = evaluator.evaluate(engine, "dev").scores
        return scores["words.perplexity"].value

    said: list[str] = []
    FinalScorer(study, said.append).score_finalists()
    assert len(said) < FINALISTS  # those that were the best once have their dev scores
    chosen = min(ranked[:FINALISTS], key=lambda trial: on_dev(trial.number))
    assert chosen != ranked[0]  # or this test shows nothing
    assert is_chosen_on_dev(study)
    assert chosen_trial(study) == find_trial(study, "best") == chosen
    assert study_json(study)["best_trial"] == chosen.number
    assert f"trial {chosen.number}, the best on dev" in study_note(study)
    assert study.best() == ranked[0]


def test_search_chooses_where_there_is_no_dev_split(
    store: Store, spec_content: Callable[..., dict[str, Any]]
) -> None:
    content = spec_content()
    del content["tasks"]["words"]["data"]["dev"]
    study = create_study(store, parse_spec(content))
    run_trials(study, 7)
    FinalScorer(study).score_finalists()
    assert find_trial(study, "best") == study.best()
    assert not is_chosen_on_dev(study)
    assert without_dev_score(study) == []
