"""The seam: an engine that is no model of torch takes the place of the one that is.

Covers engines.base, too.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna import engines
from evomerge_optuna.engines.base import Engine, EngineKind
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.report.notes import trial_note
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from tests.conftest import WORDS, SpecMaker
from tests.engines.dictionary import DictionaryEngine, engine_kind

ANSWERS = {f"{word} and": WORDS[n + 1] for n, word in enumerate(WORDS[:6])}


@pytest.fixture
def spec(make_spec: SpecMaker, tmp_path: Path) -> StudySpec:
    """A generate, a choice and a perplexity task over the same six questions."""
    data: dict[str, object] = {}
    for split, chosen in {"search": WORDS[:4], "test": WORDS[4:6]}.items():
        rows = [
            {"question": f"{word} and", "answer": ANSWERS[f"{word} and"], "other": "word0"}
            for word in chosen
        ]
        file = tmp_path / f"{split}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        data[split] = {"path": str(file)}
    return make_spec(
        tasks={
            "say": {"type": "generate", "data": data, "scorer": "exact", "max_new_tokens": 4},
            "choose": {
                "type": "choice",
                "data": data,
                "prompt": "{question}",
                "options": ["{answer}", "{other}"],
            },
            "read": {"type": "perplexity", "data": data, "text": "{question}{answer}"},
        },
        objectives=[{"maximize": "say.accuracy"}],
        trials=6,
    )


@pytest.fixture(autouse=True)
def dictionary(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> DictionaryEngine:
    """The registered engine answers from a dictionary; one of them."""
    kind = engine_kind(ANSWERS, tiny / "a")
    monkeypatch.setitem(engines.ENGINES, "transformers", lambda: kind)
    engine = kind.load_engine(tiny, None)  # type: ignore[arg-type]
    assert isinstance(engine, DictionaryEngine)
    return engine


def test_tasks_ask_it(spec: StudySpec, tiny: Path) -> None:
    found = score_checkpoint(str(tiny / "a"), spec, "search").scores
    assert found["say.accuracy"].value == 1
    assert found["choose.accuracy"].value == 1
    assert found["read.perplexity"].value == pytest.approx(2.71828**1, rel=1e-3)


def test_a_study_asks_it(spec: StudySpec, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates are put into one engine, one after the other; final scores come from it, too.

    The engine of a source is closed when the source is scored.
    """
    study = create_study(open_store(), spec)
    run_trials(study, 6)
    for trial in study.trials():
        knows = int(result_of(trial).recipe, 16) % 2
        assert trial.values == [float(knows)]
        assert result_of(trial).costs == {
            "layers": 1, "parameters": 6 if knows else 0, "flops_per_token": 0,
        }  # fmt: skip
    best = find_trial(study, "best")
    kind, loaded = engines.ENGINES["transformers"](), []

    def load(*given: Any) -> Engine:
        loaded.append(kind.load_engine(*given))
        return loaded[-1]

    monkeypatch.setitem(
        engines.ENGINES, "transformers", lambda: EngineKind(kind.candidate_builder, load)
    )
    rows = FinalScorer(study).final_scores(best)
    assert {row.scores["test"]["say.accuracy"].value for row in rows[:2]} == {1.0}  # the sources
    assert len(loaded) == 2 and all(vars(engine)["is_closed"] for engine in loaded)
    assert "| 100.0% (" in trial_note(study, best, study.read())


def test_a_task_that_needs_a_model_of_torch_is_refused_by_its_name(
    make_spec: SpecMaker,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dictionary: DictionaryEngine,
) -> None:
    (tmp_path / "own.py").write_text("def score(model, tokenizer, rows): return [0.0] * len(rows)")
    monkeypatch.chdir(tmp_path)
    allow(["own:score"])
    data = {"search": {"path": str(tiny / "search.jsonl")}}
    spec = make_spec(
        tasks={"mine": {"type": "python", "data": data, "function": "own:score"}},
        objectives=[{"maximize": "mine.score"}],
    )
    with pytest.raises(SpecError, match=r"^tasks\.mine: this task .* which the engine dictionary"):
        Evaluator(spec).evaluate(dictionary, "search")


def test_what_engines_have_in_common_needs_no_torch() -> None:
    modules = ("engines", "engines.base", "engines.encoding", "engines.endings", "models.reader")
    imports = "; ".join(f"import evomerge_optuna.{name}" for name in modules)
    code = f"{imports}; import sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
