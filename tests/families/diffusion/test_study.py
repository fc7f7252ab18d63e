"""A study of pipelines from its creation to its export; a worker is killed on the way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from evomerge_optuna.engines.diffusers import DiffusersEngine
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.report.export import export
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.studies import MergeStudy, continue_with, open_study
from tests.forked import processes

TRIALS = 4
FUNCTION = "reds:red"
CODE = """
import numpy as np

def red(images, rows):
    return [float(np.asarray(image)[..., 0].mean()) / 255 for image in images]
"""


def spec_of(pipelines: Path, folder: Path, name: str) -> StudySpec:
    rows = [
        {"prompt": f"a {colour} {shape}"} for colour in ("red", "blue") for shape in ("circle",)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "reds.py").write_text(CODE)
    return parse_spec(
        {
            "study": name,
            "stage": "ps",
            "base_model": str(pipelines / "base"),
            "models": {source: str(pipelines / source) for source in "ab"},
            "merge": {"method": "dare_ties", "blocks": True, "weight": [0, 1.5]},
            "sampler": {"seed": 1, "population": 4},
            "trials": TRIALS,
            "tasks": {
                "look": {
                    "type": "image",
                    "data": {"search": {"path": str(folder / "rows.jsonl")}},
                    "steps": 2,
                    "guidance": 1,
                    "scorers": {"red": {"type": "python", "function": FUNCTION}},
                }
            },
            "objectives": [{"maximize": "look.red"}],
            "evaluation": {"device": "cpu"},
        }
    )


def work(url: str, folder: str, dies_at: int) -> None:
    """A worker that is killed before a pass of a denoiser; 0: it is not."""
    os.chdir(folder)
    allow([FUNCTION])
    torch.set_num_threads(1)
    left, draw = [dies_at], DiffusersEngine._draw

    def counted(self: DiffusersEngine, *args: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw(self, *args)

    DiffusersEngine._draw = counted  # type: ignore[method-assign]
    run_trials(open_study(open_store(url), "killed"), TRIALS)


def outcome(study: MergeStudy) -> list[tuple[dict[str, Any], list[float], str]]:
    return [(t.params, t.values, result_of(t).sha256) for t in study.trials()]


def test_a_study_survives_its_worker_and_ends_in_a_pipeline(
    pipelines: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    allow([FUNCTION])
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    store, said = open_store(url), list[str]()
    create_study(store, spec_of(pipelines, tmp_path, "whole"), said.append)
    assert said[0] == "UNet2DConditionModel, 0.1M parameters; 24 parameters to search"
    run_trials(open_study(store, "whole"), TRIALS)
    create_study(store, spec_of(pipelines, tmp_path, "killed"))
    for dies_at, code in ((3, -signal.SIGKILL), (0, 0)):
        process = processes.Process(target=work, args=(url, str(tmp_path), dies_at), daemon=True)
        process.start()
        process.join(300)
        assert process.exitcode == code
    study = open_study(store, "killed")
    assert outcome(study) == outcome(open_study(store, "whole"))
    assert len({sha for *_, sha in outcome(study)}) == TRIALS
    # The spec as its user wrote it goes on: host, engine and blocks are what the models decided.
    assert continue_with(study, spec_of(pipelines, tmp_path, "killed")).spec == study.spec

    best = study.best()
    assert best is not None
    digest = export(study, best, tmp_path / "out", said.append)
    assert "pixel for pixel" in said[-1]
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", safety_checker=None)
    assert digest_tensors(pipeline.unet.state_dict()) == digest == result_of(best).sha256
    card = (tmp_path / "out" / "README.md").read_text()
    assert "library_name: diffusers\n" in card
    assert "pipeline_tag: text-to-image\n" in card
    spec = spec_of(pipelines, tmp_path, "again")
    found = score_checkpoint(str(tmp_path / "out"), spec, "search")
    assert np.isclose(found.scores["look.red"].value, best.values[0], atol=1e-6)


def test_no_one_else_imports_diffusers() -> None:
    """It takes seconds."""
    code = """
import sys, evomerge_optuna.cli, evomerge_optuna.families, evomerge_optuna.study.creation
import evomerge_optuna.merging.recipe_merger, evomerge_optuna.report.asking
print("diffusers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
