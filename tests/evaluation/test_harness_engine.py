"""lm-evaluation-harness asks any engine, and finds what it finds of the checkpoint by itself."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.engines.base import Greedy
from evomerge_optuna.engines.transformers import TransformersEngine
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.study.checks import runnable_tasks
from tests.conftest import WORDS
from tests.evaluation.test_harness import alone

Content = Callable[..., dict[str, Any]]
BEGIN = "task: own\ndataset_path: json\ntest_split: test\n"
KINDS = {
    "choice": """
output_type: multiple_choice
doc_to_text: "{{question}} "
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "choice without a prompt": """
output_type: multiple_choice
doc_to_text: ""
doc_to_choice: choices
doc_to_target: label
metric_list: [{metric: acc}]
""",
    "last word": """
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{answer}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    "whole texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "answers": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["word6", "word9"], max_gen_toks: 5, do_sample: false}
metric_list: [{metric: exact_match}, {metric: bleu}]
""",
}
RANDOM = "\ngeneration_kwargs: {until: [word6], do_sample: true, temperature: 0.7}\n"


HOW = Greedy(5, stop=["word6", "word9"])


class OwnEngine(TransformersEngine):
    """Has no model of transformers, as far as a task can tell."""

    @property
    def has_raw(self) -> bool:
        return False


@pytest.fixture(scope="module", autouse=True)
def no_report_on_the_machine() -> Iterator[None]:
    """Which the harness adds to its results, and which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
        yield


def task_in(folder: Path, model: Path, kind: str, more: str = "") -> None:
    """A folder with a task of some documents, whose answers a model gives in part."""
    engine = OwnEngine(*loaded(model), batch_size=8)
    questions = [f"{WORDS[i % 7]} {WORDS[i % 5]} {WORDS[(3 * i) % 11]}" for i in range(24)]
    answers = engine.generate(questions, HOW)
    rows = [
        {
            "question": question,
            "answer": said.whole if i % 2 and said else WORDS[i % 16],
            "choices": [f"{WORDS[(i * k + k) % 16]} {WORDS[i % 9]}" for k in (1, 2, 3)],
            "label": i % 3,
            "text": " ".join(WORDS[n % 16] for n in range(i, 3 * i + 2)),
        }
        for i, (question, said) in enumerate(zip(questions, answers, strict=True))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"dataset_kwargs: {{data_files: {{test: {json.dumps(str(folder / 'rows.jsonl'))}}}}}\n"
    (folder / "own.yaml").write_text(BEGIN + data + KINDS[kind] + more)
    allow([str(folder)])


def loaded(folder: Path) -> tuple[Any, Reader]:
    model, tokenizer = load_model(folder, "cpu")
    return model, Reader(tokenizer, positions(model.config))


def spec_of(folder: Path, content: Content, metric: str, **evaluation: Any) -> StudySpec:
    task = {
        "type": "lm_eval",
        "task": "own",
        "include_path": str(folder),
        "metric": metric,
        "data": {"search": "test"},
    }
    direction = "minimize" if "perplexity" in metric or "bits" in metric else "maximize"
    return parse_spec(
        content(tasks={"t": task}, objectives=[{direction: f"t.{metric}"}], evaluation=evaluation)
    )


def scored(engine: Any, spec: StudySpec) -> Evaluation:
    return Evaluator(spec).evaluate(engine, "search")


@pytest.mark.parametrize("kind", KINDS)
def test_it_finds_what_the_harness_finds_alone(
    kind: str, spec_content: Content, tiny: Path, tmp_path: Path
) -> None:
    task_in(tmp_path, tiny / "a", kind)
    wanted = {
        name.removesuffix(",none"): value
        for name, value in alone("own", tmp_path, tiny / "a", range(24)).items()
        if name.endswith(",none") and "stderr" not in name
    }
    engine = OwnEngine(*loaded(tiny / "a"), batch_size=8)
    for metric, value in wanted.items():
        found = scored(engine, spec_of(tmp_path, spec_content, metric)).scores[f"t.{metric}"]
        assert found.value == pytest.approx(value, rel=1e-5)
    assert len(wanted) > 0 and 0 not in wanted.values()


def test_a_task_that_samples_is_for_transformers_alone(
    spec_content: Content, tiny: Path, tmp_path: Path
) -> None:
    task_in(tmp_path, tiny / "a", "answers", RANDOM)
    with pytest.raises(SpecError, match=r"^tasks\.t: .* not the most likely .*transformers"):
        runnable_tasks(spec_of(tmp_path, spec_content, "exact_match", engine="vllm"))
    engine = OwnEngine(*loaded(tiny / "a"), batch_size=8)
    with pytest.raises(SpecError, match=r"^tasks\.t: its answers are not the most likely"):
        scored(engine, spec_of(tmp_path, spec_content, "exact_match"))
    usual = TransformersEngine(*loaded(tiny / "a"), batch_size=8)
    assert scored(usual, spec_of(tmp_path, spec_content, "exact_match")).scores
