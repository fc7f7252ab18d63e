"""What optuna-dashboard serves of a study: names, notes, artifacts.

Covers report.dashboard_notes, report.figures and report.markdown, too.
"""

import json
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.report.dashboard import describe_study, describe_trial, serve
from evomerge_optuna.report.figures import spread_figure, weights_figure
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import MergeStudy
from tests.conftest import SpecMaker, dashboard_of


@pytest.fixture
def merge_study(make_spec: SpecMaker, home: Path) -> MergeStudy:
    return create_study(open_store(), make_spec())


@pytest.fixture
def served(merge_study: MergeStudy) -> str:
    """A running dashboard over three trials, and its address."""
    describe_study(merge_study)
    run_trials(merge_study, 3, on_trial=partial(describe_trial, merge_study))
    return dashboard_of(merge_study.store)


def get(url: str) -> Any:
    with urllib.request.urlopen(url) as response:
        return response.read()


def test_the_dashboard_tells_what_happened(served: str, merge_study: MergeStudy) -> None:
    study_id = merge_study.study._study_id
    detail = json.loads(get(f"{served}api/studies/{study_id}?after=0"))
    assert "words.perplexity" in json.dumps(detail.get("metric_names") or detail)
    assert "study: tiny" in detail["note"]["body"]
    notes = [trial["note"]["body"] for trial in detail["trials"]]
    assert len(notes) == 3
    assert all("merge_method: ties" in note for note in notes)
    (artifact, *_) = detail["trials"][0]["artifacts"]
    content = get(f"{served}artifacts/{study_id}/{detail['trials'][0]['trial_id']}/"
                  f"{artifact['artifact_id']}")  # fmt: skip
    rows = [json.loads(line) for line in content.decode().splitlines()]
    assert len(rows) == 20
    assert rows[0]["negative_log_likelihood"] > 0


def test_a_taken_port(served: str, merge_study: MergeStudy) -> None:
    port = int(served.rstrip("/").rpartition(":")[2])
    with pytest.raises(EvomergeError, match="choose another --port"):
        serve(merge_study.store, "127.0.0.1", port)


def test_figures_show_each_parameter_with_those_that_have_it() -> None:
    one = {
        "a.weight.p0": 0.1,
        "a.weight.p1": 0.2,
        "a.della-epsilon.g0": 0.5,
        "merge.lambda.g0": 1.0,
    }
    heat = weights_figure(one)
    assert [title.text for title in heat.layout.annotations] == [
        "weight",
        "della-epsilon",
        "lambda",
    ]
    assert [(data.x, data.y) for data in heat.data] == [
        (("p0", "p1"), ("a",)),
        (("g0",), ("a",)),
        (("g0",), ("merge",)),
    ]
    boxes = spread_figure([one, {"b.weight.p0": 0.3}])  # a trial of other source models
    assert [(data.name, data.y) for data in boxes.data][:2] == [("a", (0.1, 0.2)), ("b", (0.3,))]
