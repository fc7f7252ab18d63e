"""The report of a study is one page that shows what there is, as text, and gives nothing away.

Covers report.page, report.search_figures, report.telling_answers and report.words, too.
"""

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import create_trial

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.answered import Answered
from evomerge_optuna.report.answers import Asked
from evomerge_optuna.report.search_figures import (
    LOUD,
    QUIET,
    front_figure,
    history_figure,
    importances,
)
from evomerge_optuna.report.study_page import study_page, write_study_page
from evomerge_optuna.report.telling_answers import cut, shown_prompt, telling_problems
from evomerge_optuna.report.words import listed, recipe_in_words, search_in_words, spoken
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import Metric, Objective, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials
from tests.conftest import WORDS, CommandLine, SpecMaker
from tests.report.test_sheets import drawn as drawn

EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """What a browser makes of a page: its texts, scripts, and what it would fetch."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.fetched: list[str] = []
        self.is_in = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.is_in = tag
        for name, value in attributes:
            if name in ("src", "href") and not (value or "").startswith("data:"):
                self.fetched.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self.is_in = ""

    def handle_data(self, text: str) -> None:
        if self.is_in == "script":
            self.scripts.append(text)
        elif self.is_in != "style":
            self.texts.append(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def tested(
    tmp_path_factory: pytest.TempPathFactory, spec_content: Callable[..., dict[str, Any]]
) -> Iterator[MergeStudy]:
    """Three trials of a study whose questions and names are up to no good; all is scored."""
    folder = tmp_path_factory.mktemp("page")
    choices = [*WORDS[:2], f"\u202e\0{WORDS[2]}"]
    rows = [
        {"question": f"{EVIL} {WORDS[n % 10]} {n}", "answer": choices[n % 3], "choices": choices}
        for n in range(60)
    ]
    data = {}
    for number, split in enumerate(("search", "dev", "test")):
        (folder / f"{split}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows[20 * number : 20 * number + 20])
        )
        data[split] = {"path": str(folder / f"{split}.jsonl")}
    tasks = {"choose": {"type": "choice", "prompt": "Which? {question}", "data": data}}
    content = spec_content(
        study=f"<b>{EVIL.replace('/', '')}",
        tasks=tasks,
        objectives=[{"maximize": "choose.accuracy"}],
        trials=3,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_HOME", str(folder / "home"))
        study = create_study(open_store(f"sqlite:///{folder / 'page.db'}"), parse_spec(content))
        run_trials(study, 3)
        scorer = FinalScorer(study)
        scorer.score_finalists()
        scorer.final_scores(find_trial(study.as_read(), "best"))
        yield study


def test_scores_recipe_answers_and_how_to_reproduce_them(tested: MergeStudy) -> None:
    best = find_trial(tested.as_read(), "best")
    page = Page(study_page(tested))
    text = page.text
    for model in ("a", "b", "uniform merge", "model_stock merge", f"trial {best.number}"):
        assert model in page.texts, model
    for split in ("search", "dev", "test"):
        assert f"{split} (n=20)" in text
    assert "the highest accuracy on choose" in text
    assert "the weight of a and b, from 0 to 2 (4 parameters)" in text
    assert "merge_method: ties" in text
    assert "mergekit-yaml --random-seed 1" in text
    assert result_of(best).sha256 in text
    assert f"Which? {EVIL} word" in text  # the questions, as they are
    assert "✓ right" in text and "✗ wrong" in text
    assert text.count("Reference: word") >= 2


def test_texts_stay_texts(tested: MergeStudy) -> None:
    content = study_page(tested)
    assert EVIL not in content and "<b><script" not in content
    assert not [script for script in Page(content).scripts if script.startswith("alert")]


def test_what_does_not_print_is_written_out(tested: MergeStudy) -> None:
    content = study_page(tested)
    assert "\\u202e" in content and not set(content) & {"\x00", "\u202e"}


def test_nothing_is_fetched_and_no_place_of_this_machine_is_told(
    tested: MergeStudy, tiny: Path, tmp_path: Path
) -> None:
    page = Page(study_page(tested))
    assert page.fetched == []
    assert str(tiny) not in page.text and str(tmp_path.parent) not in page.text
    assert "path: search.jsonl" in page.text  # of the spec, what can be sent


def test_pictures_are_in_the_page_itself(drawn: MergeStudy) -> None:
    content = study_page(drawn.as_read())
    assert 'src="data:image/png;base64,' in content
    page = Page(content)
    assert page.fetched == []
    assert "a blue square" in page.text
    assert "Answers side by side" not in page.text


def test_two_objectives_have_a_front(
    home: Path, tiny: Path, spec_content: Callable[..., dict[str, Any]]
) -> None:
    parts = {
        "stage": "ps+dfs",
        "stack": {"repeats": 2, "models": ["merged", "b"]},
        "sampler": {"name": "nsga2", "population": 6, "seed": 1},
        "objectives": [{"minimize": "words.perplexity"}, {"minimize": "layers"}],
    }
    study = create_study(open_store(), parse_spec(spec_content(**parts)))
    run_trials(study, 8)
    text = Page(study_page(study.as_read())).text
    assert "the lowest perplexity on words and the fewest layers" in text
    assert "stacks of layers of merged and b; merged is a merge of a and b" in text
    assert "which layers a token passes through" in text
    assert "The Pareto front" in text and "Both objectives of every trial" in text
    assert re.search(r"A token passes \d+ layers: layer", text)
    assert "evomerge-optuna study test tiny does it" in text  # nothing is scored on test
    assert str(tiny) not in text


def test_a_result_that_is_not_tested_is_no_bar_among_those_that_are(
    home: Path, make_spec: SpecMaker
) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 3)
    *_, worst = study.ranked()
    FinalScorer(study).final_scores(worst)
    bars = study_page(study.as_read()).partition("on test, with 95% intervals")[2]
    bars = bars.partition("</figure>")[0]
    assert QUIET in bars and LOUD not in bars


def test_a_study_without_scores_has_no_page(
    command_line: CommandLine, home: Path, make_spec: SpecMaker, tmp_path: Path
) -> None:
    study = create_study(open_store(), make_spec())
    with pytest.raises(UsageError, match="has no scored trial yet; run it first"):
        study_page(study)
    run_trials(study, 2)
    with pytest.raises(EvomergeError, match="cannot be written"):
        write_study_page(study, tmp_path / "none" / "page.html")
    out, _ = command_line.run("study", "report", "tiny", str(tmp_path / "page.html"))
    assert out == f"The report is in {tmp_path / 'page.html'}\n"
    assert "<h1>tiny</h1>" in (tmp_path / "page.html").read_text()


def test_methods_that_are_searched_are_told(home: Path, make_spec: SpecMaker) -> None:
    merge = {"method": ["ties", "della"], "include": "search"}
    study = create_study(open_store(), make_spec(merge=merge, sampler={"name": "random"}))
    run_trials(study, 1)
    searched = search_in_words(study)["Searched"]
    assert "the merge method: ties or della" in searched
    assert "which models take part (2 parameters)" in searched
    assert "The merge method is ties." in recipe_in_words(study, study.trials()[0])


def test_models_may_be_called_as_parts_of_a_stack_are(
    home: Path, spec_content: Callable[..., dict[str, Any]]
) -> None:
    models = spec_content()["models"]
    spec = parse_spec(spec_content(models={"layer": models["a"], "scale": models["b"]}))
    study = create_study(open_store(), spec)
    assert search_in_words(study)["Searched"] == [
        "the weight of layer and scale, from 0 to 2 (4 parameters)",
        "the density of layer and scale, from 0.1 to 1 (4 parameters)",
    ]


def asked(number: int, **right: bool | None) -> Asked:
    answers = {name: Answered("q", "a", None, "r", verdict, "-") for name, verdict in right.items()}
    return Asked("test", "t", number, "q", "r", answers)


def test_problems_of_every_kind_are_shown() -> None:
    found = telling_problems(
        [
            *(asked(n, best=True, a=False, b=False) for n in range(20)),
            asked(20, best=True, a=True, b=False),
            asked(21, best=False, a=False, b=True),
            asked(22, best=False, a=False, b=False),
            asked(23, best=None, a=None, b=None),
            asked(24, a=True),  # of which the result has no answer
        ],
        "best",
        ["a", "b"],
    )
    assert [(kind.count, len(kind.problems)) for kind in found] == [
        *((20, 5), (1, 1), (1, 1), (1, 1), (1, 1)),
    ]
    assert [problem.number for problem in found[0].problems] == [0, 4, 8, 12, 16]


@given(st.text(), st.integers(1, 50), st.integers(1, 50))
def test_a_text_is_whole_or_its_ends_are_there(text: str, head: int, tail: int) -> None:
    found = cut(text, head, tail)
    if found == text:
        return
    begin, _, end = found.partition("\n[… ")
    end = end.partition(" characters …]\n")[2]
    assert text.startswith(begin) and text.endswith(end)
    assert len(begin) <= head and len(end) <= tail


def test_a_prompt_is_cut_between_words_and_has_its_question() -> None:
    prompt = "Solved problem. " * 100 + "What is two and two?"
    shown = shown_prompt(prompt)
    assert shown.endswith("What is two and two?")
    assert re.search(r"problem\.\n\[… [\d,]+ characters …\]\n(Solved|problem)", shown)


def test_importance_needs_trials_that_differ() -> None:
    from optuna.distributions import FloatDistribution

    ranges = {name: FloatDistribution(0, 1) for name in ("loud", "quiet")}

    def trials(count: int, differ: bool = True) -> Trials:
        found = []
        for n in range(count):
            params = {"loud": n / count, "quiet": (7 * n % count) / count}
            value = n / count if differ else 0.5
            trial = create_trial(value=value, params=params, distributions=ranges)
            trial.number = n
            found.append(trial)
        return Trials(found, (Objective(maximize="t.accuracy"),))

    assert importances(trials(10)) == {}
    assert next(iter(importances(trials(60)))) == "loud"
    importances(trials(60, differ=False))  # is no error


def test_a_front_goes_from_best_to_best() -> None:
    found = []
    for number, values in enumerate([(0.9, 8.0), (0.5, 4.0), (0.4, 6.0), (0.1, 2.0)]):
        trial = create_trial(values=list(values))
        trial.number = number
        found.append(trial)
    trials = Trials(found, (Objective(maximize="t.accuracy"), Objective(minimize="layers")))
    (front,) = [
        trace
        for trace in front_figure(trials, found[1], [None, None]).data
        if trace.mode != "markers"
    ]
    assert list(zip(front.x, front.y, strict=True)) == [(2.0, 0.1), (4.0, 0.5), (8.0, 0.9)]
    assert front.line.shape == "hv"


@pytest.mark.parametrize("upwards", [Objective(maximize="t.x"), Objective(minimize="t.x")])
def test_a_front_encloses_what_it_dominates(upwards: Objective) -> None:
    """To the left of a trial where more is better, to its right where less is."""
    trial = create_trial(values=[1.0, 1.0])
    shapes = [
        front_figure(Trials([trial], (upwards, across)), trial, [None, None]).data[-2].line.shape
        for across in (Objective(maximize="t.y"), Objective(minimize="t.y"))
    ]
    assert shapes == ["vh", "hv"]


def test_shares_are_in_percent_on_both_axes() -> None:
    share = Metric("accuracy", "share", "high")
    trial = create_trial(values=[0.5, 0.25])
    trials = Trials([trial], (Objective(maximize="a.accuracy"), Objective(maximize="b.accuracy")))
    layout = front_figure(trials, trial, [share, share]).layout
    assert (layout.xaxis.tickformat, layout.yaxis.tickformat) == (".0%", ".0%")


def test_words(make_spec: SpecMaker) -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"], "or")] == [
        *("", "a", "a and b", "a, b or c"),
    ]
    spec = make_spec()
    assert spoken("words.perplexity", spec) == "perplexity on words"
    assert spoken("flops_per_token", spec) == "operations a token"
    assert spoken("layers", spec) == "layers"


def test_labels_that_would_cover_each_other_are_one(home: Path, make_spec: SpecMaker) -> None:
    study = create_study(open_store(), make_spec())
    run_trials(study, 2)
    trials, best = study.read(), study.best()
    assert best is not None
    top = max(t.values[0] for t in trials.ranked)
    lines = {"a": top, "b": 2 * top, "c": 1.001 * top}
    figure = history_figure(trials, best, study.spec.metric("words.perplexity"), lines)
    assert [label.text for label in figure.layout.annotations] == ["a, c", "b"]
    assert len(figure.layout.shapes) == 3
