"""Studies that merge the text part of a vision-language model, from the spec to the export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from transformers import AutoModelForImageTextToText, AutoProcessor

from evomerge_optuna.engines import load_engine
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.families import merged_folder
from evomerge_optuna.report.export import RECIPE_FILE, export
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import EvaluationSpec, StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, continue_with, open_study
from tests.engine import engine_of
from tests.vision import is_of_the_text, read_tensors, save_tiny_llava

MakeSpec = Callable[..., StudySpec]
STACK = {"repeats": 1, "head": "first", "scale": "step"}
MERGE = {"method": "ties", "layer_group_size": 2, "dtype": "float32", "tokenizer_source": "union"}


@pytest.fixture(scope="session")
def vlm(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("vision") / "vlm", 5, tiny / "base", rows=3)


@pytest.fixture
def vision_spec(
    spec_content: Callable[..., dict[str, Any]], tiny: Path, vlm: Path, home: Path
) -> MakeSpec:
    def make(**parts: Any) -> StudySpec:
        content = spec_content(
            models={"vl": str(vlm), "ja": str(tiny / "a")}, merge=MERGE, trials=3
        )
        return parse_spec({k: v for k, v in (content | parts).items() if v is not None})

    return make


def run(spec: StudySpec) -> MergeStudy:
    merge_study = create_study(open_store(), spec)
    run_trials(merge_study, 3)
    assert [t.state for t in merge_study.trials()] == [TrialState.COMPLETE] * 3
    return merge_study


STAGES: dict[str, dict[str, Any]] = {
    "ps": {},
    "ps by checkpoints": {"evaluation": {"merger": "checkpoint"}},
    "dfs": {"stage": "dfs", "base_model": None, "merge": None, "stack": STACK},
    "ps+dfs": {"stage": "ps+dfs", "stack": STACK},
}


@pytest.mark.parametrize("stage", STAGES)
def test_searched_scored_and_exported(
    vision_spec: MakeSpec, vlm: Path, tmp_path: Path, stage: str
) -> None:
    merge_study = run(vision_spec(**STAGES[stage]))
    assert merge_study.spec.vision == "vl"
    chosen = find_trial(merge_study, "2")
    rows = {row.name: row.scores for row in FinalScorer(merge_study).final_scores(chosen)}
    evaluator = Evaluator(merge_study.spec)
    alone = evaluator.evaluate(load_engine(vlm, EvaluationSpec(device="cpu")), "test")
    assert rows["vl"]["test"] == alone.scores

    out = tmp_path / "out"
    assert export(merge_study, chosen, out) == result_of(chosen).sha256
    before, after = read_tensors(vlm), read_tensors(out)
    for name, tensor in before.items():
        if not is_of_the_text(name):
            assert torch.equal(after[name], tensor)
    model = AutoModelForImageTextToText.from_pretrained(out)
    tokenizer = AutoProcessor.from_pretrained(out).tokenizer
    found = evaluator.evaluate(engine_of(model, tokenizer), "test")
    exported = found.scores["words.perplexity"].value
    # A stack's scales are folded into its weights.
    scored = rows["trial 2"]["test"]["words.perplexity"].value
    assert exported == (scored if "dfs" not in stage else pytest.approx(scored, rel=1e-3))
    if stage == "ps":
        written = (out / RECIPE_FILE).read_text()
        assert written.startswith("# The text part again:")
        assert f"model: {merged_folder(str(vlm))}" in written
        assert score_checkpoint(str(vlm), merge_study.spec, "test").scores == alone.scores
    card = (out / "README.md").read_text()
    assert "pipeline_tag: image-text-to-text" in card
    assert "vision tower and projector are those of vlm" in card


def test_a_stack_of_the_best_merge(vision_spec: MakeSpec, tmp_path: Path, vlm: Path) -> None:
    """Staged: it has the vision of the merge that another study found."""
    first = run(vision_spec(study="first"))
    staged = run(
        vision_spec(
            stage="ps+dfs", from_study="first", base_model=None, merge=None,
            models={"ja": first.spec.models["ja"]}, stack=STACK,
        )
    )  # fmt: skip
    assert staged.spec.host == str(vlm)
    best = find_trial(staged, "0")
    assert best.values[0] == first.best().values[0]  # type: ignore[union-attr]
    export(staged, best, tmp_path / "out")
    AutoModelForImageTextToText.from_pretrained(tmp_path / "out")


def test_resumed_by_a_spec_that_leaves_the_vision_open(vision_spec: MakeSpec, vlm: Path) -> None:
    merge_study = create_study(open_store(), vision_spec())
    stored = open_study(merge_study.store, merge_study.name)
    assert stored.spec.vision == "vl"
    assert continue_with(stored, vision_spec()).spec == stored.spec
    assert stored.space.recipe(stored.space.baseline()).host == str(vlm)


def test_which_vision(vision_spec: MakeSpec, tiny: Path, vlm: Path, tmp_path: Path) -> None:
    """The base model's before the sources', unless the spec says otherwise."""
    other = save_tiny_llava(tmp_path / "other", 6, tiny / "base", rows=3)
    both = vision_spec(base_model=str(other), merge=MERGE | {"method": "task_arithmetic"})
    found = create_study(open_store(), both)
    assert found.spec.vision == "base_model"
    rows = FinalScorer(found)
    named = both.model_copy(update={"study": "named", "vision": "vl"})
    run_trials(found, 1)
    assert [row.name for row in rows.final_scores(found.trials()[0])] == [
        *(
            "base_model",
            "vl",
            "ja",
            "uniform merge",
            "model_stock merge",
            "karcher merge",
            "trial 0",
        )
    ]
    assert create_study(open_store(), named).spec.host == str(vlm)


def test_refused(vision_spec: MakeSpec, tiny: Path, vlm: Path, tmp_path: Path) -> None:
    def refusal(**parts: Any) -> str:
        with pytest.raises(SpecError) as error:
            create_study(open_store(), vision_spec(**parts))
        return str(error.value)

    def with_source(**config: Any) -> dict[str, Any]:
        folder = tmp_path / f"vl{len(list(tmp_path.iterdir()))}"
        return {"models": {"vl": str(save_tiny_llava(folder, 9, **config)), "ja": str(tiny / "a")}}

    deep = refusal(**with_source(num_hidden_layers=6))
    assert "models.vl: layers 6, but base_model has 4 (tensor model.layers.4." in deep
    wide = refusal(**with_source(hidden_size=32))
    assert "models.vl: hidden size 32, but base_model has 16 (tensor model.embed_tokens." in wide
    assert "vision: there is no model 'x'; models are base_model, vl, ja" in refusal(vision="x")
    assert "vision: models.ja (" in refusal(vision="ja")
    other = refusal(merge=MERGE | {"tokenizer_source": "base"})
    assert "models.vl: its token <image>, which stands for images, is none of base_model" in other
    rows = refusal(merge={k: v for k, v in MERGE.items() if k != "tokenizer_source"})
    assert "models.vl: vocabulary of 23 tokens, but base_model has 19; set merge.tok" in rows
    text_first = refusal(**STAGES["dfs"], models={"ja": str(tiny / "a"), "vl": str(vlm)})
    assert "is none of models.ja; name the vision-language model first" in text_first
    broken = read_tensors(vlm)
    broken["vision_tower.embeddings.class_embedding"][0] = torch.nan
    folder = tmp_path / "broken"
    save_tiny_llava(folder, 5, tiny / "base", rows=3)
    from safetensors.torch import save_file

    save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
    assert "tensor vision_tower.embeddings.class_embedding has NaN" in refusal(
        models={"vl": str(folder), "ja": str(tiny / "a")}
    )
