"""What is said of answers that end before they begin."""

from evomerge_optuna.engines.stops import cut
from evomerge_optuna.evaluation.empty_answers import empty_remark

STOPS = ["\n\n", "Q:", "Q"]


def remark(*texts: str) -> str:
    found = [cut(text, STOPS) for text in texts]
    return empty_remark("tasks.t", [(text, text.stopped_by) for text in found])


def test_answers_that_begin_with_a_stop_string_are_told() -> None:
    assert remark(*["\n\n12"] * 13, "12") == (
        "tasks.t: 93% of 14 answers are empty: they begin with the stop string '\\n\\n'; leave it "
        "out of tasks.t.stop, or let the prompt end with it"
    )
    assert remark("Q: 1", *["12"] * 5).startswith("tasks.t: 17% of 6 answers")
    assert remark("Q: 1", *["12"] * 50) == ""
    assert remark("12\n\n", "12 Q:") == ""


def test_other_empty_answers_are_told_where_they_are_most() -> None:
    line = remark("", " ", "", "12")
    assert line.startswith("tasks.t: 75% of 4 answers are empty: the model ends them at once")
    assert remark("", "12") == ""
    assert remark() == ""
