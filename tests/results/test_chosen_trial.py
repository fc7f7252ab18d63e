"""Which trial is a study's result: dev decides a race of the best few on search.

Covers results.final_scores and results.final_scorer, too.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

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
    is_race_open,
)
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.results.finalists import Finalist, standing
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.quarters import QUARTERS, dev_blocks
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import recipe_of
from tests.conftest import SpecMaker


@pytest.fixture
def store(home: Path) -> Store:
    return open_store()


def test_dev_decides_a_race_of_the_best_on_search(store: Store, make_spec: SpecMaker) -> None:
    study = create_study(store, make_spec(sampler={"seed": 2, "population": 4}))
    run_trials(study, 12)
    ranked = study.ranked()
    study.study.enqueue_trial(ranked[0].params)  # the same recipe is a finalist once
    run_trials(study, 13)
    found = finalists(study)
    assert found == ranked[:FINALISTS]
    assert chosen_trial(study) == find_trial(study, "best") == study.best() == ranked[0]
    assert is_race_open(study)

    builder, evaluator = Builder(study.spec.evaluation), Evaluator(study.spec)
    blocks = dev_blocks(study.spec, study.tasks)
    assert len(blocks) == QUARTERS

    def finalist(trial: FrozenTrial) -> Finalist:
        engine = builder.build(recipe_of(trial)).engine
        parts = evaluator.evaluate_blocks(engine, "dev", blocks)
        scores = [p.scores["words.perplexity"] for p in parts]
        search = result_of(trial).scores["words.perplexity"]
        first, *dev = ((-math.log(score.value), float(score.n)) for score in (search, *scores))
        return Finalist(first, tuple(dev))

    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        if len(said) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FinalScorer(study, interrupt).score_finalists()
    assert said[0].endswith("on a quarter of dev")
    assert is_race_open(study)
    scored = set(said[:4])
    said.clear()
    scorer = FinalScorer(study, said.append)
    scorer.score_finalists()
    place = standing([finalist(trial) for trial in found]).winner
    assert place is not None
    chosen = found[place]
    assert said[-1] == f"trial {chosen.number} is the best of {FINALISTS} on search and dev"
    assert scored.isdisjoint(said)  # what is stored is not scored again
    assert is_chosen_on_dev(study)
    assert not is_race_open(study)
    assert chosen_trial(study) == find_trial(study, "best") == chosen
    assert study_json(study)["best_trial"] == chosen.number
    assert f"trial {chosen.number}, the best on search and dev" in study_note(study)
    assert study.best() == ranked[0]
    said.clear()
    scorer.score_finalists()
    assert said == []


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
    assert not is_race_open(study)
