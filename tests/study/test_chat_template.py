"""A chat study over a base model without a chat template, whose sources have one or not."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge_optuna.errors import SpecError
from evomerge_optuna.report.export import export
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from tests.conftest import WORDS, SpecMaker, save_tiny_model

TEMPLATE = "{% for m in messages %}word9 {{ m['content'] }} {% endfor %}"


def a_study(
    make_spec: SpecMaker, folder: Path, with_template: Iterable[str], **merge: str
) -> StudySpec:
    base = save_tiny_model(folder / "base", 0)
    models = {n: str(save_tiny_model(folder / n, i, base)) for i, n in enumerate("ab", 1)}
    for name in with_template:
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder / name)
    rows = [{"question": WORDS[i], "answer": WORDS[i + 1]} for i in range(6)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    task = {
        "type": "generate", "chat": True, "prompt": "{question}", "answer": "answer",
        "scorer": "contains", "max_new_tokens": 4,
        "data": {"search": {"path": str(folder / "rows.jsonl")}},
    }  # fmt: skip
    return make_spec(
        base_model=str(base),
        models=models,
        merge={"method": "linear", **merge},
        tasks={"chat": task},
        objectives=[{"maximize": "chat.accuracy"}],
    )


@pytest.mark.parametrize("with_template", ["ab", "b"])
@pytest.mark.parametrize("merge", [{"chat_template": "auto"}, {"tokenizer_source": "b"}], ids=str)
def test_searched_scored_and_exported(
    make_spec: SpecMaker,
    tmp_path: Path,
    home: Path,
    with_template: str,
    merge: dict[str, str],
) -> None:
    study = create_study(open_store(), a_study(make_spec, tmp_path, with_template, **merge))
    run_trials(study, 2)
    best = find_trial(study, "best")
    rows = FinalScorer(study).final_scores(best)
    others = ["uniform merge", "model_stock merge", "karcher merge"]
    assert [row.name for row in rows] == ["a", "b", *others, f"trial {best.number}"]
    export(study, best, tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == TEMPLATE


def test_a_search_of_both_spaces_scores_what_nothing_was_searched_for(
    make_spec: SpecMaker, tmp_path: Path, home: Path
) -> None:
    """Those without a chat template get that of the merge below the stack."""
    spec = a_study(make_spec, tmp_path, ["base"])
    content = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    content |= {"stage": "ps+dfs", "stack": {"repeats": 2}, "sampler": {"name": "nsga2"}}
    study = create_study(open_store(), parse_spec(content))
    run_trials(study, 1)
    rows = FinalScorer(study).final_scores(find_trial(study, "best"))
    merges = ["uniform merge", "model_stock merge", "karcher merge"]
    assert [row.name for row in rows] == ["a", "b", *merges, "trial 0"]


def test_without_one_the_cure_is_told(make_spec: SpecMaker, tmp_path: Path, home: Path) -> None:
    with pytest.raises(SpecError, match=r"no chat template.*chat_template: auto"):
        create_study(open_store(), a_study(make_spec, tmp_path, "ab"))
