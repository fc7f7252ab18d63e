"""What a browser shows of a study: the real dashboard in a real Chromium."""

import html
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna_dashboard import save_note

from evomerge_optuna.report.dashboard import describe_study, describe_trial
from evomerge_optuna.report.markdown import plain, table
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from tests.conftest import dashboard_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no Chromium is installed"
)


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, spec_content: Callable[..., dict[str, Any]]
) -> str:
    """A dashboard over a joint study of two objectives."""
    folder = tmp_path_factory.mktemp("browser")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_HOME", str(folder))
        store = open_store(f"sqlite:///{folder / 'studies.db'}")
        parts = {
            "study": "both",
            "stage": "ps+dfs",
            "stack": {"repeats": 2, "models": ["merged", "b"]},
            "sampler": {"name": "nsga2", "population": 6},
            "objectives": [{"minimize": "words.perplexity"}, {"minimize": "layers"}],
        }
        study = create_study(store, parse_spec(spec_content(**parts)))
        run_trials(study, 12, on_trial=partial(describe_trial, study))
        describe_study(study)
    return dashboard_of(store)


def page(url: str, profile: Path) -> str:
    """The page as it is once its scripts have run."""
    assert CHROMIUM is not None, "CI needs Chromium: apt-get install chromium"
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--window-size=1400,2600", "--virtual-time-budget=15000", "--dump-dom"),
        *(f"--user-data-dir={profile}", url),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_list_of_studies(address: str, tmp_path: Path) -> None:
    assert "both" in page(f"{address}dashboard", tmp_path)


def test_the_page_of_a_study(address: str, tmp_path: Path) -> None:
    shown = page(f"{address}dashboard/studies/1", tmp_path)
    assert "Pareto" in shown
    assert "words.perplexity" in shown and "layers" in shown  # the axes' names
    for title in ("Where the time goes", "Merge of the best trial", "Path of"):
        assert title in shown, title


def test_the_page_of_a_trial(address: str, tmp_path: Path) -> None:
    shown = page(f"{address}dashboard/studies/1/trials?numbers=0", tmp_path)
    assert "Export it" in shown
    assert "A path of 4 layers" in shown
    assert "merge_method" in shown
    assert "uniform merge" in shown  # what the trial is
    assert "problems.jsonl" in shown


def test_answers_of_a_note_are_shown_sign_for_sign(tmp_path: Path) -> None:
    """Whatever a model writes is text: neither HTML nor Markdown nor TeX."""
    answers = [
        "<b>bold</b> <script>document.body.textContent = 'gone'</script>",
        "a | b, $5 or $6, **c** _d_ `e` ~~f~~ [g](http://h.example) \\| &lt; <http://i.example>",
    ]
    store = open_store(f"sqlite:///{tmp_path / 'studies.db'}")
    study = optuna.create_study(storage=store.rdb, study_name="notes")
    save_note(study, table(["answer"], [[plain(answer, 200)] for answer in answers]))
    shown = page(f"{dashboard_of(store)}dashboard/studies/1/note", tmp_path / "profile")
    cells = re.findall("<td>(.*?)</td>", shown)
    assert [html.unescape(re.sub("</?a[^>]*>", "", cell)) for cell in cells] == answers
