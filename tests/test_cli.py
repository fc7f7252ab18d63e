"""The command line as its users meet it: one line for each mistake, JSON that parses.

Covers `__main__`, `errors`, `examples`, `versions`, cli.models, cli.options, cli.output,
cli.results, cli.servers, cli.studies and report.study_list, too.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge_optuna import __version__
from evomerge_optuna.errors import SpecError, StudyChangedError
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.report.tables import evaluation_json
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.spec import load_spec
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from evomerge_optuna.study.unchanged import check_unchanged
from tests.conftest import CommandLine, SpecMaker, save_tiny_model


@pytest.fixture
def write_spec(tmp_path: Path, spec_content: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    def write(**parts: Any) -> str:
        file = tmp_path / "tiny.yaml"
        file.write_text(yaml.safe_dump(spec_content(**parts)))
        return str(file)

    return write


def fails(command_line: CommandLine, code: int, *arguments: str) -> str:
    """The one line a failing command prints."""
    out, err = command_line.run(*arguments, code=code)
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1, err
    return err


def test_the_way_of_a_study(command_line: CommandLine, write_spec: Callable[..., str]) -> None:
    spec = write_spec(trials=3)
    out, _ = command_line.run("study", "create", spec)
    assert "evomerge-optuna study run tiny" in out
    command_line.run("study", "run", "tiny")
    command_line.run("study", "run", spec, "--trials", "5")
    shown = command_line.show("tiny")
    assert shown["states"] == {
        "complete": 5, "fail": 0, "running": 0, "waiting": 0, "interrupted": 0,
    }  # fmt: skip
    assert len(shown["trials_by_number"]) == 5
    assert len(shown["trials_by_number"][0]["parameters"]) == 8

    tested = json.loads(command_line.run("study", "test", "tiny", "--json")[0])
    chosen = command_line.show("tiny")["best_trial"]
    others = ["model_stock merge", "karcher merge"]  # which have nothing to search
    assert list(tested["scores"]) == ["a", "b", "uniform merge", *others, f"trial {chosen}"]
    assert [gap["split"] for gap in tested["gap"]] == ["dev", "test"]
    table, said = command_line.run("study", "test", "tiny")
    assert "uniform merge" in table and "study export tiny OUT" in table
    assert f"Gap of trial {chosen}: search " in table
    assert said == ""  # nothing scored again
    (listed,) = json.loads(command_line.run("study", "list", "--json")[0])
    assert (listed["name"], listed["trials"]) == ("tiny", 5)
    assert "tiny" in command_line.run("study", "list")[0]

    command_line.run("study", "export", "tiny", "out")
    assert (command_line.folder / "out" / "model.safetensors").is_file()
    assert "never overwrites" in fails(command_line, 2, "study", "export", "tiny", "out")
    assert "exists in" in fails(command_line, 2, "study", "create", spec)
    changed = write_spec(trials=3, sampler={"seed": 5})
    assert "sampler.seed: 1 -> 5" in fails(command_line, 2, "study", "run", changed)
    command_line.run("study", "delete", "tiny", "--yes")
    assert command_line.run("study", "list", "--json")[0] == "[]\n"


def test_mistakes(
    command_line: CommandLine, write_spec: Callable[..., str], tiny: Path, tmp_path: Path
) -> None:
    typo = write_spec(trails=3)
    assert "trails: unknown key; did you mean 'trials'?" in fails(
        command_line, 2, "study", "run", typo
    )
    missing = write_spec(models={"a": str(tiny / "a"), "b": "/nowhere/model"})
    assert "models.b: there is no folder /nowhere/model" in fails(
        command_line, 2, "study", "run", missing
    )
    other = save_tiny_model(tmp_path / "other", 1, hidden_size=32)
    shape = write_spec(models={"a": str(tiny / "a"), "b": str(other)})
    assert "models.b: hidden size 32, but base_model has 16" in fails(
        command_line, 2, "study", "run", shape
    )
    said = fails(command_line, 1, "study", "list", "--storage", "postgresql://me@127.0.0.1:1/db")
    assert "me@127.0.0.1:1" in said
    assert "there is no study 'none'" in fails(command_line, 2, "study", "show", "none")


SECRETS = ("me:very-secret@h/db", "h/db?password=very-secret", "h/db?sslpassword=very-secret")


@pytest.mark.parametrize("rest", SECRETS)
def test_no_password_in_the_process_list(
    command_line: CommandLine, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://{rest}"
    said = fails(command_line, 2, "study", "list", "--storage", url)
    assert "put the URL into EVOMERGE_STORAGE" in said and "very-secret" not in said
    monkeypatch.setenv("EVOMERGE_STORAGE", url)
    said = fails(command_line, 1, "study", "list")
    assert "could not translate host" in said or "resolve" in said
    assert "very-secret" not in said


def test_code_of_a_stored_study_needs_permission(
    command_line: CommandLine,
    home: Path,
    make_spec: SpecMaker,
    tiny: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = {"search": {"path": str(tiny / "search.jsonl")}}
    function = "own_scores:score"
    spec = make_spec(
        trials=2,
        tasks={"own": {"type": "python", "data": data, "function": function}},
        objectives=[{"maximize": "own.score"}],
    )
    module = command_line.folder / "own_scores.py"
    module.write_text("def score(model, tokenizer, rows): return [1.5] * len(rows)\n")
    monkeypatch.chdir(command_line.folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    store = open_store(f"sqlite:///{home / 'evomerge.db'}")
    with pytest.raises(SpecError, match="allow it with --allow-code"):
        create_study(store, spec)
    allow([function])
    created = create_study(store, spec)
    said = fails(command_line, 2, "study", "run", "tiny")
    assert "would run the code of own_scores:score; look at it, then allow it with" in said
    _, said = command_line.run("study", "run", "tiny", "--allow-code", "--trials", "1")
    assert "evomerge-optuna study run tiny --trials 1 --allow-code" not in said  # all it wanted
    _, said = command_line.run("study", "run", "tiny", "--allow-code", "--timeout", "0")
    assert said.rstrip().endswith("evomerge-optuna study run tiny --timeout 0.0 --allow-code")
    command_line.run("study", "run", "tiny", "--allow-code", "--workers", "2")
    assert [trial.values for trial in created.trials()] == [[1.5]] * 2
    module.write_text(module.read_text().replace("1.5", "2.5"))
    with pytest.raises(StudyChangedError, match=r"other files \(tasks\.own\.function: sha256"):
        check_unchanged(created, lambda _: None)


def test_evaluate(command_line: CommandLine, write_spec: Callable[..., str], tiny: Path) -> None:
    spec = write_spec()
    out, _ = command_line.run("evaluate", str(tiny / "a"), "--task", spec, "--json")
    wanted = score_checkpoint(str(tiny / "a"), load_spec(Path(spec)), "test")
    assert json.loads(out) == evaluation_json(str(tiny / "a"), wanted)


def test_debug_shows_the_traceback(command_line: CommandLine) -> None:
    _, err = command_line.run("--debug", "study", "show", "none", code=1)
    assert "Traceback" in err


def test_help_and_version(command_line: CommandLine) -> None:
    versions = dict(line.split() for line in command_line.run("--version")[0].splitlines())
    assert versions["evomerge-optuna"] == __version__
    assert {"optuna", "mergekit", "torch", "transformers"} <= versions.keys()
    out, _ = command_line.run("study", "--help")
    for command in ("create", "run", "list", "show", "test", "export", "delete"):
        assert f"  {command} " in out


def test_an_example_is_a_spec(command_line: CommandLine) -> None:
    listed = [line.split()[0] for line in command_line.run("study", "example")[0].splitlines()]
    assert {"quickstart", "ja_math_ps"} <= set(listed)
    for name in listed:
        out, _ = command_line.run("study", "example", name)
        assert f"evomerge-optuna study run {name}.yaml" in out
        assert load_spec(command_line.folder / f"{name}.yaml").study == name.replace("_", "-")
    (command_line.folder / "quickstart.yaml").write_text("study: mine\n")
    assert "is another file" in fails(command_line, 2, "study", "example", "quickstart")
    assert "ja_math_dfs, " in fails(command_line, 2, "study", "example", "none")


@pytest.mark.parametrize("code", ["import evomerge_optuna", "import evomerge_optuna.cli"])
def test_nothing_large_is_imported_for_help(code: str) -> None:
    large = {"torch", "transformers", "optuna", "mergekit", "datasets", "sqlalchemy", "pydantic"}
    shown = "import sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", f"{code}; {shown}"], capture_output=True, text=True)
    assert "evomerge_optuna" in out.stdout.split()
    assert not large & set(out.stdout.split())


def test_libraries_say_nothing(
    command_line: CommandLine, write_spec: Callable[..., str], tiny: Path
) -> None:
    (command_line.folder / "loud.py").write_text(
        "import logging, warnings\n"
        "def score(model, tokenizer, rows):\n"
        "    for name in ('datasets', 'httpx', 'huggingface_hub', 'alembic', 'sqlalchemy.pool'):\n"
        "        logging.getLogger(name).error('%s speaks', name)\n"
        "    warnings.warn('a library warns')\n"
        "    return [len(rows) for _ in rows]\n"
    )
    task = {"type": "python", "function": "loud:score"}
    data = {split: {"path": str(tiny / f"{split}.jsonl")} for split in ("search", "test")}
    spec = write_spec(tasks={"own": task | {"data": data}}, objectives=[{"maximize": "own.score"}])
    out, err = command_line.run("evaluate", str(tiny / "a"), "--task", spec)
    assert "own.score" in out
    assert err == ""
