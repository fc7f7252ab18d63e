"""Creation opens each model once, and loads the data of each task once.

What it checks and stores is tested in `test_studies`. Covers models.opened, too.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

from evomerge_optuna.evaluation.tasks import base
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from tests.conftest import SpecMaker


def count_visits(kind: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what is read by this package; mergekit and transformers read configurations again."""
    visits: Counter[str] = Counter()
    read = kind.from_pretrained

    def from_pretrained(place: Any, *given: Any, **named: Any) -> Any:
        caller = sys._getframe(1).f_globals["__name__"]
        if caller.startswith("evomerge_optuna"):
            visits[Path(str(place)).name] += 1
        return read(place, *given, **named)

    monkeypatch.setattr(kind, "from_pretrained", from_pretrained)
    return visits


def test_each_model_is_opened_once(
    make_spec: SpecMaker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, tokenizers = (count_visits(k, monkeypatch) for k in (AutoConfig, AutoTokenizer))
    spec = make_spec()
    create_study(open_store(), spec)
    once = {Path(name).name: 1 for name in spec.model_ids().values()}
    assert len(once) >= 3
    assert configs == once
    assert tokenizers == once


def test_the_data_of_each_task_is_loaded_once(
    make_spec: SpecMaker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = base.load_rows

    def load_rows(source: Any, where: str) -> Any:
        loaded.append(where)
        return load(source, where)

    monkeypatch.setattr(base, "load_rows", load_rows)
    created = create_study(open_store(), make_spec())
    (task,) = created.tasks.values()
    for split in task.splits:  # as a run that begins in the same process does
        task.problems(split)
    assert sorted(loaded) == sorted(f"{task.key}.data.{split}" for split in task.splits)


def test_keys_of_one_model_share_it(tiny: Path) -> None:
    base_name, other = str(tiny / "base"), str(tiny / "a")
    models = OpenedModels({"base_model": base_name, "models.a": other, "models.b": base_name})
    assert models["base_model"] is models["models.b"] is models.named(base_name)
    assert models["models.a"].tokenizer is models.named(other).tokenizer
    assert list(models) == ["base_model", "models.a", "models.b"]
    assert models["models.b"].key == "base_model"  # where errors name it first
