"""Tasks declare their metrics; of the harness's it is checked that its own declaration agrees."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from evomerge_optuna.spec import Metric, Task, parse_spec
from evomerge_optuna.spec.metrics import _OF_THE_HARNESS, harness_metric
from tests.conftest import SpecMaker

SHARE = ("share", "high")
DECLARED: list[tuple[dict[str, Any], dict[str, tuple[str, str | None]]]] = [
    ({"type": "generate"}, {"accuracy": SHARE, "number_accuracy": SHARE}),
    (
        {"type": "generate", "scorer": "rouge_l", "language": "ja", "chat": True},
        {"rouge_l": ("grade", "high"), "language_share": SHARE, "cut_off_share": ("share", "low")},
    ),
    ({"type": "vqa", "scorer": "exact"}, {"accuracy": SHARE, "match_accuracy": SHARE}),
    ({"type": "choice"}, {"accuracy": SHARE, "normalized_accuracy": SHARE}),
    ({"type": "perplexity"}, {"perplexity": ("perplexity", "low")}),
    ({"type": "python", "function": "a:b"}, {"score": ("number", None)}),
    ({"type": "lm_eval", "task": "a", "metric": "f1"}, {"f1": ("grade", "high")}),
]


@pytest.mark.parametrize(("given", "wanted"), DECLARED)
def test_what_tasks_declare(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    data = {"search": "test[:2]"} if given["type"] == "lm_eval" else "x"
    task: Task = TypeAdapter(Task).validate_python({"data": data, **given})
    assert {m.name: (m.kind, m.better) for m in task.metrics} == wanted


def test_the_harness_says_the_same_of_its_metrics() -> None:
    pytest.importorskip("lm_eval")
    import lm_eval.api.metrics  # noqa: F401  (registers them)
    from lm_eval.api.registry import higher_is_better_registry

    declared = {name: higher_is_better_registry[name] for name in higher_is_better_registry}
    shares = ("acc", "acc_norm", "acc_mutual_info", "acc_bytes", "acc_all")
    known = {name: harness_metric(name) for name in (*shares, *_OF_THE_HARNESS)}
    assert {"acc", "exact_match", "word_perplexity", "f1"} <= declared.keys() & known.keys()
    for name in declared.keys() & known.keys():
        assert known[name].better == ("high" if declared[name] else "low"), name


def test_metrics_of_the_harness_and_of_users() -> None:
    for name in ("acc", "acc_norm", "acc_ja", "partial_accuracy"):
        assert harness_metric(name) == Metric(name, "share", "high")
    assert harness_metric("their_own") == Metric("their_own", "number", None)


def test_a_spec_knows_the_metric_of_a_target(make_spec: SpecMaker) -> None:
    spec = make_spec()
    assert spec.metric("words.perplexity") == Metric("perplexity", "perplexity", "low")
    assert spec.metric("layers") == Metric("layers", "number", "low")
    assert spec.metric("words.of_before") == Metric("of_before", "number", None)
    assert parse_spec(spec.model_dump(mode="json", by_alias=True)).tasks == spec.tasks
