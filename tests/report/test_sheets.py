"""Contact sheets of a study that draws: on its page, in a comparison, on a model card."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from evomerge_optuna.report.comparison import write_report
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.report.export import export
from evomerge_optuna.report.sheets import best_sheets, contact_sheets
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.compare import compare
from evomerge_optuna.results.final_scorer import FinalScorer
from evomerge_optuna.run import Limits, run_study
from evomerge_optuna.spec import parse_spec
from evomerge_optuna.store.artifacts import attached
from evomerge_optuna.store.open import open_store
from evomerge_optuna.store.optuna_internals import study_attributes
from evomerge_optuna.study.studies import MergeStudy
from tests.pipelines import save_pipeline, save_variant

PROMPTS = {"search": ["a red circle", "a blue square"], "test": ["a red square"]}


CODE = """def score(images, rows):
    return [sum(image.resize((1, 1)).getpixel((0, 0))) for image in images]
"""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MergeStudy]:
    """A study of two trials; whether its pictures are bright is what counts."""
    folder = tmp_path_factory.mktemp("drawn")
    base = save_pipeline(folder / "base")
    data = {}
    for split, prompts in PROMPTS.items():
        file = folder / f"{split}.jsonl"
        file.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
        data[split] = {"path": str(file)}
    (folder / "brightness.py").write_text(CODE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_HOME", str(folder / "home"))
        patch.syspath_prepend(folder)
        spec = parse_spec(
            {
                "study": "drawn",
                "stage": "ps",
                "base_model": str(base),
                "models": {n: str(save_variant(base, folder / n, s)) for s, n in enumerate("ab")},
                "merge": {"method": "task_arithmetic", "weight": [0, 1]},
                "trials": 2,
                "tasks": {
                    "pictures": {
                        "type": "image",
                        "data": data,
                        "steps": 1,
                        "guidance": 1,
                        "scorers": {"light": {"type": "python", "function": "brightness:score"}},
                    }
                },
                "objectives": [{"maximize": "pictures.light"}],
            }
        )
        yield run_study(open_store(f"sqlite:///{folder / 'drawn.db'}"), spec, Limits())


def test_the_page_shows_the_baseline_beside_the_best(drawn: MergeStudy) -> None:
    (sheet,) = best_sheets(drawn)
    assert (sheet.split, sheet.prompts) == ("search", tuple(PROMPTS["search"]))
    assert "uniform merge" in sheet.models and sheet.models[-1].startswith("trial ")
    image = Image.open(io.BytesIO(sheet.png))
    assert image.size == (120 + 2 * 132, 18 + len(sheet.models) * 132)
    describe_study(drawn)
    describe_study(drawn)  # attaches nothing twice
    attributes = study_attributes(drawn.study)
    (artifact,) = [artifact for name, artifact in attached(attributes) if name == sheet.file]
    note = "".join(str(value) for key, value in attributes.items() if "note_str" in key)
    assert f"/{artifact})" in note and "1: a red circle; 2: a blue square" in note


def test_models_that_were_tested_are_shown_where_most_of_them_have_drawn(
    drawn: MergeStudy,
) -> None:
    best = find_trial(drawn, "best")
    FinalScorer(drawn).final_scores(best)
    (sheet,) = contact_sheets(drawn, best)
    assert (sheet.split, sheet.prompts) == ("test", tuple(PROMPTS["test"]))
    assert {"a", "b", "uniform merge", f"trial {best.number}"} <= set(sheet.models)


def test_comparisons_and_cards_have_them(drawn: MergeStudy, tmp_path: Path) -> None:
    sheets = best_sheets(drawn)
    write_report(compare([drawn]), tmp_path / "page.html", sheets)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<figure>") == 1 and 'src="data:image/png' in page
    assert "drawn: pictures of pictures" in page
    export(drawn, find_trial(drawn, "best"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Pictures\n\n![pictures](pictures-pictures.png)" in card
    assert (tmp_path / "out" / "pictures-pictures.png").read_bytes() == sheets[0].png
