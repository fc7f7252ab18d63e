"""An objective may ask for worse models; it is said."""

from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.study.directions import unusual_directions
from tests.conftest import SpecMaker


def said(spec: StudySpec) -> list[str]:
    return list(unusual_directions(spec, runners(spec.tasks)))


def test_the_worse_side_of_a_metric(make_spec: SpecMaker) -> None:
    assert said(make_spec()) == []
    assert said(make_spec(objectives=[{"maximize": "words.perplexity"}])) == [
        "Warning: the study is to maximize words.perplexity, of which low values are better; "
        "write minimize: words.perplexity for better models"
    ]


def test_a_score_of_which_nobody_says_what_is_better(make_spec: SpecMaker) -> None:
    task = {"type": "python", "function": "a:b", "data": {"search": {"path": "x.jsonl"}}}
    for direction in ("maximize", "minimize"):
        assert said(make_spec(tasks={"own": task}, objectives=[{direction: "own.score"}])) == []
