"""Text and images as two objectives of one search, from the spec to the final table."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from evomerge_optuna.errors import SpecError
from evomerge_optuna.report.card import model_card
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from tests.conftest import WORDS
from tests.evaluation.tasks.test_vqa import png
from tests.vision import save_tiny_llava

Content = Callable[..., dict[str, Any]]


@pytest.fixture
def content(spec_content: Content, tiny: Path, tmp_path: Path, home: Path) -> dict[str, Any]:
    vlm = save_tiny_llava(tmp_path / "vlm", 5, tiny / "base", rows=3)
    for i, split in enumerate(("search", "test")):
        lines = []
        for j, colour in enumerate(("red", "blue", "black")):
            (tmp_path / f"{split}{j}.png").write_bytes(png(colour))
            answer = " ".join(WORDS[j : j + 8])
            lines.append({"image": f"{split}{j}.png", "question": WORDS[i], "answer": answer})
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    paths = {split: {"path": str(tmp_path / f"{split}.jsonl")} for split in ("search", "test")}
    eyes = {"type": "vqa", "data": paths, "scorer": "rouge_l", "max_new_tokens": 8}
    plain = spec_content()
    return spec_content(
        models={"vlm": str(vlm), "ja": str(tiny / "a")},
        merge=plain["merge"] | {"dtype": "float32", "tokenizer_source": "union"},
        tasks=plain["tasks"] | {"eyes": eyes},
        objectives=[{"maximize": "eyes.rouge_l"}, {"minimize": "words.perplexity"}],
        sampler={"name": "nsga2", "seed": 1, "population": 4},
        trials=6,
    )


def test_two_objectives(content: dict[str, Any]) -> None:
    study = create_study(open_store(), parse_spec(content))
    run_trials(study, 6)
    trials = study.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert all(0 <= t.values[0] <= 1 < t.values[1] for t in trials)
    assert len({t.values[0] for t in trials}) > 1
    rows = FinalScorer(study).final_scores(study.front()[0])
    scores = {row.name: row.scores["test"]["eyes.rouge_l"] for row in rows}
    assert scores.keys() >= {"vlm", "ja", "uniform merge"}  # ja answers blind
    assert all(score.n == 3 for score in scores.values())
    describe_study(study)  # where only the other task has a dev split
    content["tasks"]["eyes"]["language"] = "ja"
    japanese = replace(study, spec=parse_spec(content))
    assert "\nlanguage:\n- ja\n" in model_card(japanese, study.front()[0], "sha256")


def test_no_model_sees(content: dict[str, Any], tiny: Path) -> None:
    blind = {name: str(tiny / name) for name in "ab"}
    with pytest.raises(SpecError, match=r"^tasks\.eyes: a vqa task has images, and none of the"):
        create_study(open_store(), parse_spec(content | {"models": blind}))
