"""Candidates that are asked at once have the trials that they have one after the other.

Covers search.scored, too.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from transformers import AutoTokenizer

from evomerge_optuna import engines
from evomerge_optuna.engines.base import Candidate, EngineKind
from evomerge_optuna.errors import CandidateError, Interrupted, SpecError
from evomerge_optuna.evaluation.tasks.perplexity import PerplexityRunner
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.search.joined import candidates_at_once
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.objective import Objective
from evomerge_optuna.search.worker import working
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import BASELINE, SAME_AS, STOPPED
from evomerge_optuna.study.studies import MergeStudy, open_study
from tests.conftest import WORDS, SpecMaker
from tests.engines.dictionary import JoinedDictionaries, JoiningDictionaries

ANSWERS = {f"{word} and": WORDS[n + 1] for n, word in enumerate(WORDS[:8])}
TRIALS = 16  # four to begin with, and three generations


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch, tiny: Path, home: Path) -> JoiningDictionaries:
    """The registered engine's, which can be asked for four candidates at once."""
    reader = Reader(AutoTokenizer.from_pretrained(tiny / "a"), positions=64)
    found = JoiningDictionaries(reader, ANSWERS, room=4)
    kind = EngineKind(lambda *_: found, lambda *_: found)  # type: ignore[arg-type, return-value]
    monkeypatch.setitem(engines.ENGINES, "transformers", lambda: kind)
    monkeypatch.setattr(StudySpec, "asks_at_once", True)
    return found


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """Tasks of all types that can be asked at once, and a generation of four."""
    rows = [{"question": q, "answer": a, "other": "word0"} for q, a in ANSWERS.items()]
    file = tmp_path / "search.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"search": {"path": str(file)}}
    return {
        "tasks": {
            "say": {"type": "generate", "data": data, "scorer": "exact", "max_new_tokens": 4},
            "choose": {
                "type": "choice",
                "data": data,
                "prompt": "{question}",
                "options": ["{answer}", "{other}"],
            },
            "read": {"type": "perplexity", "data": data, "text": "{question}{answer}"},
        },
        "objectives": [{"maximize": "say.accuracy"}],
        "merge": {"method": "linear", "weight": [0, 1]},
        "sampler": {"name": "cmaes", "seed": 3, "population": 4},
        "trials": TRIALS,
        "starts": True,
    }


def outcome(study: MergeStudy) -> list[Any]:
    """What each trial came to."""
    return [
        (
            trial.params,
            trial.values,
            result_of(trial).measures,
            trial.intermediate_values,
            trial.user_attrs.get(STOPPED),
            trial.system_attrs.get("cma:generation"),
        )
        for trial in sorted(study.trials(), key=study.read().position)
    ]


def made(spec: StudySpec, name: str, **evaluation: Any) -> MergeStudy:
    content = {**spec.model_dump(mode="json", by_alias=True, exclude_unset=True), "study": name}
    return create_study(
        open_store(), type(spec).model_validate({**content, "evaluation": evaluation})
    )


def test_a_generation_at_once_has_the_trials_of_one_after_the_other(
    builder: JoiningDictionaries, make_spec: SpecMaker, content: dict[str, Any]
) -> None:
    spec = make_spec(**content)
    single, joined = made(spec, "single", candidates=1), made(spec, "joined")
    run_trials(single, TRIALS)
    assert builder.joined == []
    run_trials(joined, TRIALS)
    begun = sum(BASELINE in trial.user_attrs for trial in joined.trials())
    assert builder.joined == [begun, 4, 4, 4] and begun == 4
    assert outcome(joined) == outcome(single)
    assert len({values[0] for _, values, *_ in outcome(joined)}) > 3


@pytest.mark.parametrize("racing", [None, {"blocks": 4, "p_threshold": 0.6}])
@pytest.mark.parametrize("sampler", ["cmaes", "tpe", "nsga2"])
def test_what_is_asked_at_once_is_what_is_asked_one_by_one(
    builder: JoiningDictionaries,
    make_spec: SpecMaker,
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    sampler: str,
    racing: dict[str, Any] | None,
) -> None:
    """Whether it races or not; those that are stopped leave the others."""
    own = {"name": sampler, "seed": 3} | ({} if sampler == "tpe" else {"population": 4})
    spec = make_spec(**{**content, "sampler": own, "racing": racing})
    joined, single = made(spec, "joined", candidates=4), made(spec, "single", candidates=4)
    run_trials(joined, TRIALS)
    assert max(builder.joined) == 4
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "ask_ahead", lambda *_: None)
        run_trials(single, TRIALS)
    assert outcome(joined) == outcome(single)
    assert bool(joined.read().stopped) == (racing is not None)


def test_a_task_that_cannot_be_asked_at_once_is_asked_of_one_candidate_after_the_other(
    builder: JoiningDictionaries,
    make_spec: SpecMaker,
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = make_spec(**content)
    whole, mixed = made(spec, "whole"), made(spec, "mixed")
    run_trials(whole, TRIALS)
    monkeypatch.setattr(PerplexityRunner, "asks_in_order", False)
    monkeypatch.delattr(JoinedDictionaries, "negative_log_likelihoods")
    run_trials(mixed, TRIALS)
    assert outcome(mixed) == outcome(whole)


def test_a_candidate_that_fails_does_so_alone(
    builder: JoiningDictionaries,
    make_spec: SpecMaker,
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a batch one cannot be built, and one of another has no finite score."""
    study = made(make_spec(**content), "failing")
    build, failing = JoiningDictionaries.build, {}

    def bad(self: JoiningDictionaries, recipe: Recipe) -> Candidate:
        number = failing.setdefault(recipe.digest(), len(failing))
        if number == 4:
            raise CandidateError("a weight is NaN")
        return build(self, recipe)

    monkeypatch.setattr(JoiningDictionaries, "build", bad)
    run_trials(study, 11)
    states = [trial.state for trial in study.trials()]
    assert [n for n, state in enumerate(states) if state is TrialState.FAIL] == [4]
    assert builder.joined == [4, 3, 3]
    assert study.trials()[4].user_attrs["error"] == "a weight is NaN"


def test_candidates_that_cannot_be_asked_at_once_are_asked_one_by_one(
    builder: JoiningDictionaries,
    make_spec: SpecMaker,
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where one of them spoils the answers of the others."""
    spec = make_spec(**content)
    whole, study, said = made(spec, "whole"), made(spec, "spoilt"), list[str]()
    run_trials(whole, TRIALS)

    def without_memory(*_: Any) -> None:
        raise CandidateError("a candidate computes NaN or infinities")

    monkeypatch.setattr(JoinedDictionaries, "log_likelihoods", without_memory)
    run_trials(study, TRIALS, say=said.append)
    assert outcome(study) == outcome(whole)
    line = "these candidates are asked one by one: a candidate computes NaN or infinities"
    assert [one for one in said if one.startswith("these")] == [line]


def test_equal_candidates_of_a_batch_are_scored_once(
    builder: JoiningDictionaries, make_spec: SpecMaker, content: dict[str, Any]
) -> None:
    merge = {"method": "linear", "weight": {"choices": [0, 1]}}
    spec = make_spec(**{**content, "merge": merge, "sampler": {"name": "random"}, "starts": False})
    study = made(spec, "equal", candidates=8)
    run_trials(study, 8)
    trials = study.trials()
    repeats = [trial for trial in trials if SAME_AS in trial.user_attrs]
    assert builder.built == len(trials) - len(repeats) and repeats
    for trial in repeats:
        assert trial.values == trials[trial.user_attrs[SAME_AS]].values


@pytest.mark.parametrize("calls", [1, 4, 8])
@pytest.mark.parametrize("sampler", ["cmaes", "tpe"])
def test_a_study_that_is_stopped_amid_a_batch_goes_on_as_if_it_had_not_been(
    builder: JoiningDictionaries,
    make_spec: SpecMaker,
    content: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
    sampler: str,
) -> None:
    """Before any of its trials is told, or after some are."""
    own = {"name": sampler, "seed": 3} | ({"population": 4} if sampler == "cmaes" else {})
    spec = make_spec(**{**content, "sampler": own})
    whole, study = made(spec, "whole", candidates=4), made(spec, "stopped", candidates=4)
    run_trials(whole, TRIALS)
    score, left = Objective.__call__, calls

    def stop(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return score(*given)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", stop)
        with pytest.raises(Interrupted):
            run_trials(study, TRIALS)
    assert study.finished() == calls
    assert not study.read().of(TrialState.RUNNING)
    assert len(study.read().of(TrialState.WAITING)) > 1
    again = open_study(study.store, study.name)
    run_trials(again, TRIALS)
    assert outcome(again) == outcome(whole)


def test_trials_whose_worker_died_are_run_alone(
    builder: JoiningDictionaries, make_spec: SpecMaker, content: dict[str, Any]
) -> None:
    """All trials of its batch are repeated, each alone: so the one to blame is found."""
    spec = make_spec(**content)
    whole, study = made(spec, "whole"), made(spec, "killed")
    run_trials(whole, TRIALS)
    run_trials(study, 4)
    with working(study) as own:
        assert len(own.next_trials(TRIALS, load=lambda: None, at_once=4)) == 4
    builder.joined.clear()
    run_trials(open_study(study.store, study.name), TRIALS)
    assert builder.joined == [4, 4]
    assert outcome(study) == outcome(whole)


def test_how_many_are_asked_at_once(
    builder: JoiningDictionaries, make_spec: SpecMaker, content: dict[str, Any]
) -> None:
    def count(parameters: int, **evaluation: Any) -> int:
        parts = {**content, "sampler": sampler, "evaluation": evaluation}
        return candidates_at_once(make_spec(**parts), parameters)

    sampler = {"name": "cmaes"}
    assert [count(n) for n in (1, 2, 8, 60)] == [6, 6, 10, 16]
    assert count(2, candidates=3) == 3
    sampler = {"name": "cmaes", "population": 9}
    assert count(2) == 9
    sampler = {"name": "tpe"}
    assert count(2) == 1 and count(2, candidates=5) == 5


def test_only_adapters_in_vllm_are_asked_at_once(make_spec: SpecMaker) -> None:
    with pytest.raises(SpecError, match=r"evaluation.candidates: only adapters are asked at once"):
        make_spec(evaluation={"candidates": 4})
    assert candidates_at_once(make_spec(sampler={"name": "cmaes"}), 4) == 1
