"""A study is created whole or not at all, and continued only as it was begun.

Covers study.checks and study.creation, too.
"""

import shutil
from pathlib import Path

import optuna
import pytest
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import SpecError, StudyChangedError, UsageError
from evomerge_optuna.search.requeue import requeue_running
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study import schema
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.studies import (
    continue_with,
    delete_study,
    exists,
    list_studies,
    open_study,
)
from tests.conftest import SpecMaker


def test_a_study_is_its_spec_and_needs_nothing_else(make_spec: SpecMaker, home: Path) -> None:
    created = create_study(open_store(), make_spec())
    opened = open_study(open_store(), "tiny")
    assert opened.spec == created.spec
    assert opened.space == created.space
    assert opened.study.user_attrs["versions"]["mergekit"] == "0.1.5"
    (summary,) = list_studies(open_store())
    assert (summary.name, summary.trials, summary.wanted, summary.best) == ("tiny", 0, 10, None)


def test_a_study_of_another_version_hides_no_other(make_spec: SpecMaker, home: Path) -> None:
    later = create_study(open_store(), make_spec(study="later")).study
    create_study(open_store(), make_spec())
    later.set_user_attr("spec", {**later.user_attrs["spec"], "invented": 1})
    said: list[str] = []
    assert [summary.name for summary in list_studies(open_store(), said.append)] == ["tiny"]
    assert len(said) == 1 and "study later: invented" in said[0]


def test_what_it_needs_is_told_before_a_weight_is_read(
    make_spec: SpecMaker, home: Path, tiny: Path, tmp_path: Path
) -> None:
    empty = shutil.copytree(tiny / "b", tmp_path / "b")
    tensors = load_file(empty / "model.safetensors")
    save_file({name: t * float("nan") for name, t in tensors.items()}, empty / "model.safetensors")
    said: list[str] = []
    with pytest.raises(SpecError, match="has NaN"):
        create_study(open_store(), make_spec(models={"b": str(empty)}), said.append)
    assert said[-1].startswith("memory: ") and "can be kept" not in said[-1]
    with pytest.raises(SpecError, match=r"^evaluation\.memory_limit: .* leave it out"):
        create_study(open_store(), make_spec(evaluation={"memory_limit": "99TB"}))


def test_a_creation_cut_short_is_finished_by_the_next(
    make_spec: SpecMaker, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store()
    with monkeypatch.context() as broken:
        broken.setattr(
            optuna.Study, "enqueue_trial", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            create_study(store, make_spec())
    assert not exists(store, "tiny")
    with pytest.raises(UsageError, match="its creation was cut short"):
        open_study(store, "tiny")
    created = create_study(store, make_spec())
    assert len(created.trials()) == 1


def test_a_spec_that_fails_leaves_nothing_behind(
    make_spec: SpecMaker, home: Path, tiny: Path
) -> None:
    store = open_store()
    with pytest.raises(SpecError):
        create_study(store, make_spec(models={"a": str(tiny / "none")}))
    with pytest.raises(SpecError, match="nothing to search, for every value is fixed; give one"):
        create_study(store, make_spec(merge={"method": "ties", "weight": 1, "density": 0.5}))
    assert list_studies(store) == []
    assert not optuna.get_all_study_names(store.rdb)


def test_an_unknown_language(make_spec: SpecMaker, home: Path, tiny: Path) -> None:
    task = {
        "type": "generate",
        "data": {"search": {"path": str(tiny / "search.jsonl"), "answer": "text"}},
        "prompt": "{text}",
        "language": "jp",
    }
    spec = make_spec(tasks={"t": task}, objectives=[{"maximize": "t.accuracy"}])
    with pytest.raises(SpecError, match=r"tasks\.t\.language: lid\.176 does not know 'jp'"):
        create_study(open_store(), spec)


def test_a_changed_spec_is_refused(make_spec: SpecMaker, home: Path) -> None:
    created = create_study(open_store(), make_spec())
    faster = make_spec(trials=500, evaluation={"batch_size": 2})
    assert continue_with(created, faster).spec == faster
    assert open_study(created.store, "tiny").spec == faster
    with pytest.raises(StudyChangedError, match=r"evaluation\.dtype: None -> bfloat16"):
        continue_with(created, make_spec(evaluation={"dtype": "bfloat16"}))
    with pytest.raises(StudyChangedError, match=r"merge\.weight: \[0\.0, 2\.0\] -> \[0\.0, 1\.0\]"):
        continue_with(
            created,
            make_spec(merge={"method": "ties", "layer_group_size": 2, "weight": [0, 1]}),
        )


def test_delete_takes_trials_and_artifacts(make_spec: SpecMaker, home: Path) -> None:
    from evomerge_optuna.search.loop import run_trials

    store = open_store()
    run_trials(create_study(store, make_spec()), 2)
    assert list(Path(str(store.artifacts)).iterdir())
    delete_study(store, "tiny")
    assert list_studies(store) == []
    assert not list(Path(str(store.artifacts)).iterdir())
    with pytest.raises(UsageError, match="there is no study 'tiny'"):
        delete_study(store, "tiny")


def test_delete_of_a_trial_cut_short_after_its_artifact(make_spec: SpecMaker, home: Path) -> None:
    from optuna.artifacts import upload_artifact

    created = create_study(open_store(), make_spec())
    trial = created.study.ask()
    upload_artifact(
        artifact_store=created.store.artifacts, file_path=__file__, study_or_trial=trial
    )
    requeue_running(created, lambda _: True, "its worker died")
    delete_study(created.store, "tiny")
    assert not list(Path(str(created.store.artifacts)).iterdir())


def test_delete_after_the_dashboard_deleted_an_artifact(make_spec: SpecMaker, home: Path) -> None:
    created = create_study(open_store(), make_spec())
    for name in ("kept", "deleted"):
        created.store.artifacts.attach(created.study, name, "text", "text/plain")
    _, deleted = optuna.artifacts.get_all_artifact_meta(created.study)
    created.store.artifacts.remove(deleted.artifact_id)
    created.store.rdb.set_study_system_attr(
        created.study._study_id, f"artifacts:{deleted.artifact_id}", "null"
    )  # as the dashboard leaves it
    delete_study(created.store, "tiny")
    assert not list(Path(str(created.store.artifacts)).iterdir())


def test_delete_removes_nothing_outside_the_artifact_store(
    make_spec: SpecMaker, home: Path
) -> None:
    """Who may write to the database may name any artifact."""
    created = create_study(open_store(), make_spec())
    (home / "precious").touch()
    for name in ("../precious", str(home / "precious")):
        created.store.rdb.set_study_system_attr(created.study._study_id, f"artifacts:{name}", "{}")
    delete_study(created.store, "tiny")
    assert (home / "precious").exists()


def test_a_wrong_name_is_answered_by_near_ones(home: Path) -> None:
    store = open_store()
    with pytest.raises(UsageError, match=r"it has no studies yet$"):
        open_study(store, "merge-3")
    for number in range(40):
        optuna.create_study(storage=store.rdb, study_name=f"{'merge' * (number < 2)}-{number}")
    with pytest.raises(UsageError, match=r"did you mean 'merge-1' or 'merge-0'\?$"):
        open_study(store, "merg-1")
    with pytest.raises(UsageError, match=r"study list lists all studies$"):
        delete_study(store, "quite another name")


def test_studies_of_other_programs_are_left_alone(make_spec: SpecMaker, home: Path) -> None:
    store = open_store()
    optuna.create_study(storage=store.rdb, study_name="tiny").ask()
    optuna.create_study(storage=store.rdb, study_name="queued").enqueue_trial({"x": 1})
    for name in ("tiny", "queued"):
        with pytest.raises(UsageError, match="made by another program; choose another name"):
            create_study(store, make_spec(study=name))
    optuna.create_study(storage=store.rdb, study_name="someone else's")
    assert list_studies(store) == []
    with pytest.raises(UsageError, match="has no spec"):
        open_study(store, "someone else's")
    assert (
        schema.SPEC
        not in optuna.load_study(study_name="someone else's", storage=store.rdb).user_attrs
    )
