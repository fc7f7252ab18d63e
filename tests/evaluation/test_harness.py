"""Tasks of lm-evaluation-harness: the scores that it gives alone, in memory and by its backends.

Covers evaluation.harness_model and evaluation.tasks.lm_eval, too.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.blocks import Block
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.evaluation.user_code import allow, code_of, fingerprint_code
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.report.export import export
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import LMEvalTask, RacingSpec, StudySpec, parse_spec
from evomerge_optuna.spec.metrics import harness_metric
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from tests.conftest import WORDS
from tests.engine import engine_of

CHOICE = """
task: next_word
dataset_path: json
dataset_kwargs: {{data_files: {{train: "{root}/train.jsonl", test: "{root}/test.jsonl"}}}}
training_split: train
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Say: {{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc}}
  - {{metric: acc_norm}}
"""
GENERATE = """
include: next_word.yaml
task: say
output_type: generate_until
doc_to_choice: null
doc_to_text: !function say.question
doc_to_target: !function say.target
generation_kwargs: {{until: ["word6"], max_gen_toks: 3}}
filter_list:
  - name: last
    filter:
      - {{function: regex, regex_pattern: "(\\\\S+)", group_select: -1}}
      - {{function: take_first}}
  - name: none
    filter:
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match}}
  - {{metric: bleu, higher_is_better: false}}
"""
PYTHON = """
def question(doc):
    return doc["question"]

def target(doc):
    return doc["choices"][doc["label"]]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tasks over the same 40 + 40 documents, one with Python beside it."""
    root = tmp_path_factory.mktemp("tasks")
    draw = random.Random(0)
    for number, split in enumerate(("train", "test")):
        rows = [
            {
                "question": f"{WORDS[i % 16]} {WORDS[i // 16 + 4 * number]} {WORDS[i % 5]}",
                "choices": draw.sample(WORDS, 3),
                "label": draw.randrange(3),
            }
            for i in range(40)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "next_word.yaml").write_text(CHOICE.format(root=root))
    (root / "say.yaml").write_text(GENERATE.format(root=root))
    (root / "say.py").write_text(PYTHON)
    allow([str(root)])
    return root


@pytest.fixture(scope="module", autouse=True)
def no_report_on_the_machine() -> Iterator[None]:
    """Which the harness adds to its results, and which takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
        yield


Make = Callable[..., StudySpec]


@pytest.fixture
def make(spec_content: Callable[..., dict[str, Any]], folder: Path) -> Make:
    """A spec whose task is of that folder; keywords replace the task's keys."""

    def made(evaluation: dict[str, Any] | None = None, **parts: Any) -> StudySpec:
        task = {
            "type": "lm_eval",
            "task": "next_word",
            "include_path": str(folder),
            "data": {"search": "[:24]", "dev": "train[:10]", "test": "[24:]"},
            **parts,
        }
        return parse_spec(
            spec_content(
                tasks={"words": task},
                objectives=[{"maximize": f"words.{task.get('metric', 'acc')}"}],
                trials=3,
                evaluation=evaluation or {},
            )
        )

    return made


def test_a_task_declares_which_way_is_better(make: Make) -> None:
    """Its own word counts more than what the metric is elsewhere."""
    found = {}
    for metric in ("exact_match", "bleu"):
        runner = runners(make(task="say", metric=metric).tasks)["words"]
        found[metric] = runner.better(harness_metric(metric))
    assert found == {"exact_match": "high", "bleu": "low"}


def alone(task: str, folder: Path, model: Path, documents: range, **options: Any) -> Any:
    """What lm-evaluation-harness finds of a checkpoint by itself."""
    found = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "auto"},
        device="cpu",
        tasks=[task],
        samples={task: list(documents)},
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        batch_size=8,
        **options,
    )
    assert found is not None
    return found["results"][task]


def test_a_trial_scores_as_the_harness_does_the_exported_checkpoint(
    make: Make, folder: Path, tmp_path: Path, home: Path
) -> None:
    created = create_study(open_store(f"sqlite:///{tmp_path / 's.db'}"), make())
    run_trials(created, trials=3)
    best = created.best()
    assert best is not None
    export(created, best, tmp_path / "model")
    wanted = alone("next_word", folder, tmp_path / "model", range(24))
    assert best.values[0] == wanted["acc,none"]
    assert result_of(best).scores["words.acc"].n == 24
    assert len({result_of(trial).sha256 for trial in created.trials()}) > 1


@pytest.mark.parametrize(
    ("task", "metric", "filter_", "shots"),
    [
        ("next_word", "acc_norm", "none", 2),
        ("say", "exact_match", "last", 0),
        ("say", "bleu", "none", 0),
    ],
)
def test_metrics_filters_and_shots(
    make: Make, folder: Path, tiny: Path, task: str, metric: str, filter_: str, shots: int
) -> None:
    spec = make(task=task, metric=metric, filter=filter_, num_fewshot=shots)
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluation = Evaluator(spec).evaluate(engine_of(model, tokenizer), "test")
    score = evaluation.scores[f"words.{metric}"]
    wanted = alone(task, folder, tiny / "a", range(24, 40), num_fewshot=shots)
    assert score.value == pytest.approx(wanted[f"{metric},{filter_}"], rel=1e-12)
    assert score.low <= score.value <= score.high and score.n == 16
    marked = evaluation.marks()
    assert marked == {} if metric == "bleu" else len(marked["words"]) == 16
    assert [row["document"] for row in evaluation.rows()] == list(range(24, 40))
    json.dumps(evaluation.rows())


def test_no_document_is_a_shot_before_itself(
    make: Make, folder: Path, tmp_path: Path, tiny: Path
) -> None:
    text = (folder / "next_word.yaml").read_text().replace("fewshot_split: train\n", "")
    (tmp_path / "next_word.yaml").write_text(text)
    allow([str(tmp_path)])
    runner = runners(make(include_path=str(tmp_path), num_fewshot=30).tasks)["words"]
    problems = runner.problems("dev")  # of the split that the shots are drawn from
    model, tokenizer = load_model(tiny / "a", "cpu")
    found = runner.run(engine_of(model, tokenizer), problems)
    asked = [row.prompt.rpartition("Say: ")[2] for row in found]
    assert [row.prompt.count(f"Say: {a}") for row, a in zip(found, asked, strict=True)] == [1] * 10


def test_blocks_are_the_whole(make: Make, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    evaluator = Evaluator(make())
    whole = evaluator.evaluate(engine_of(model, tokenizer), "dev")
    blocks = evaluator.evaluate_blocks(
        engine_of(model, tokenizer), "dev", [Block(n, 3, 0) for n in range(3)]
    )
    assert evaluator.join(blocks).scores == whole.scores
    assert {row["prompt"].startswith("Say: word") for row in whole.rows()} == {True}


def test_random_numbers_and_weights_are_left_alone(make: Make, tiny: Path) -> None:
    model, tokenizer = load_model(tiny / "a", "cpu")
    model.config.tie_word_embeddings = True  # as a stack may have it, whose head is another's
    head = model.lm_head.weight.clone()
    evaluator = Evaluator(make())
    evaluator.evaluate(engine_of(model, tokenizer), "dev")  # loading data draws random names
    state = torch.get_rng_state(), random.getstate()
    evaluator.evaluate(engine_of(model, tokenizer), "dev")
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    assert torch.equal(model.lm_head.weight, head)


def test_a_backend_loads_the_candidates_checkpoint(
    make: Make, folder: Path, tmp_path: Path, home: Path
) -> None:
    spec = make({"merger": "checkpoint", "batch_size": 8}, backend="hf")
    assert code_of(spec) == (str(folder), "hf")
    with pytest.raises(SpecError, match=r"tasks\.words\.backend: the spec comes from the database"):
        runners(spec.tasks)["words"].problems("search")
    allow(["hf"])
    created = create_study(open_store(f"sqlite:///{tmp_path / 's.db'}"), spec)
    run_trials(created, trials=2)
    in_memory = create_study(open_store(f"sqlite:///{tmp_path / 'm.db'}"), make())
    run_trials(in_memory, trials=2)
    assert [t.values for t in created.trials()] == [t.values for t in in_memory.trials()]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"backend": "vllm"}, "words.backend: vllm loads a checkpoint from disk; write evaluation"),
        ({"backend_args": {"a": 1}}, "words.backend_args: there is no backend that takes them"),
        (
            {"backend": "hf", "backend_args": {"trust_remote_code": True}},
            "backend_args: trust_remote_code is not for a spec to give",
        ),
        ({"data": {"search": "[1]"}}, "words.data.search: write documents as"),
        ({"data": {"dev": "[:1]"}}, "words.data.search: missing"),
        ({"task": "mmlu_no_such"}, "words.task: 'mmlu_no_such' is no task of lm-evaluation-harn"),
        ({"metric": "f1"}, "words.metric: next_word has no metric 'f1'; it has acc, acc_norm"),
        ({"filter": "last"}, "words.filter: next_word has no filter 'last'; it has none"),
        ({"data": {"search": "dev[:9]"}}, "next_word has no split 'dev'; it has train, test"),
        ({"data": {"search": "[40:]"}}, "data.search: [40:] has no documents; there are 40"),
        (
            {"data": {"search": "[:9]", "test": "[8:20]"}},
            "tasks.words.data: a problem of search occurs again in test",
        ),
        ({"include_path": "/nowhere"}, "the spec comes from the database and would run the code"),
    ],
)
def test_what_is_wrong(
    make: Make, parts: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "task" in parts:  # the built-in tasks are thousands of files
        monkeypatch.setattr("lm_eval.tasks._index.TaskIndex._iter_yaml_files", lambda _: iter(()))
    with pytest.raises(SpecError) as raised:
        check_data(runners(make(**parts).tasks))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_metric_from_the_hub_is_not_run(make: Make, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(
        "task: next_word\ndataset_path: json\nmetric_list: [{metric: acc, hf_evaluate: true}]\n"
    )
    allow([str(tmp_path)])
    with pytest.raises(SpecError, match="takes its metric acc as code from the hub, which is"):
        check_data(runners(make(include_path=str(tmp_path)).tasks))


def test_changed_tasks_are_noticed(make: Make, folder: Path, tmp_path: Path) -> None:
    spec = make()
    before = fingerprint_code(spec), fingerprint_data(runners(spec.tasks))
    assert before == (fingerprint_code(spec), fingerprint_data(runners(spec.tasks)))
    assert len({*before[1].values()}) == 3
    copy = shutil.copytree(folder, tmp_path / "copy")
    allow([str(copy)])
    moved = make(include_path=str(copy))
    assert fingerprint_code(moved) == before[0]
    (copy / "say.py").write_text(PYTHON + "\n")
    changed = fingerprint_code(moved)
    assert changed != before[0]
    (copy / "_template_yaml").write_text("doc_to_text: other")  # which a task may include
    assert fingerprint_code(moved) != changed


def test_a_chat_needs_a_template(make: Make, home: Path) -> None:
    with pytest.raises(SpecError, match=r"base_model: .*tasks\.words\.chat: the tokenizer has no"):
        create_study(open_store(), make(chat=True))


def test_racing_needs_a_mean(make: Make, home: Path) -> None:
    spec = make(task="say", metric="bleu").model_copy(update={"racing": RacingSpec()})
    with pytest.raises(SpecError, match=r"^racing: words\.bleu is not a mean over problems"):
        create_study(open_store(), spec)


def test_documents_as_written() -> None:
    for text in ("[:200]", "train[10:-5]", "test", "[200:]"):
        data = LMEvalTask.model_validate({"type": "lm_eval", "task": "t", "data": {"search": text}})
        assert data.model_dump(mode="json")["data"]["search"] == text
