"""`study init` on a terminal and in a script: what it writes makes a study that runs.

Covers cli.begin, cli.asked, proposal.proposed and `timed_try`.
"""

import csv
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import yaml

from evomerge_optuna.spec import load_spec
from evomerge_optuna.spec.adapter_merge import AdapterStudySpec
from evomerge_optuna.spec.tasks import GenerateTask
from tests.conftest import WORDS, CommandLine, save_adapter


@pytest.fixture
def folder(tiny: Path, tmp_path: Path, command_line: CommandLine) -> Path:
    """Where a user sits: fine-tunes of one base, whose names say nothing, and a CSV."""
    for name, copy in {"base": "m", "a": "a", "b": "b"}.items():
        shutil.copytree(tiny / name, tmp_path / copy)
    with open(tmp_path / "sums.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "Question", "Result"])
        for number in range(40):
            words = f"{WORDS[number % 16]} {WORDS[number // 16]} {WORDS[number % 7]}"
            writer.writerow([f"q{number}", words, WORDS[number % 5]])
    return tmp_path


def test_without_a_word(folder: Path, command_line: CommandLine) -> None:
    out, err = command_line.run("study", "init", "--yes", "--minutes", "1")
    assert out.startswith("Wrote sums-merge.yaml. Run it with: evomerge-optuna study run ")
    content = yaml.safe_load((folder / "sums-merge.yaml").read_text())
    assert content["base_model"] == "./m" and content["models"] == {"a": "./a", "b": "./b"}
    task = content["tasks"]["sums"]
    assert (task["type"], task["prompt"], task["answer"]) == ("generate", "{Question}", "Result")
    assert set(task["data"]) == {"search", "dev", "test"}
    assert "memory: " in err and "a trial takes about" in err and "for example: " in err
    assert str(content["trials"]) in err
    left = {path.name for path in folder.glob("*")} - {"home"}  # which caches are kept in
    assert left == {"a", "b", "m", "sums.csv", "sums-merge.yaml"}
    command_line.run("study", "run", "sums-merge.yaml", "--trials", "2")
    assert command_line.show("sums-merge")["states"]["complete"] == 2
    _, err = command_line.run("study", "init", "--yes", "--no-try", code=2)
    assert "sums-merge.yaml exists" in err and "--overwrite" in err


def test_options_say_all(folder: Path, command_line: CommandLine) -> None:
    arguments = ["a", "b", "--base", "none", "--data", "sums.csv", "--goal", "perplexity"]
    arguments += ["--name", "mine", "--out", "my.yaml", "--no-try", "--yes"]
    command_line.run("study", "init", *arguments)
    spec = load_spec(folder / "my.yaml")
    assert spec.study == "mine" and spec.method == "linear"
    assert "base_model" not in spec.model_ids()
    assert [objective.target for objective in spec.objectives] == ["sums.perplexity"]


def test_what_is_missing_is_named(tmp_path: Path, tiny: Path, command_line: CommandLine) -> None:
    _, err = command_line.run("study", "init", "--yes", code=2)
    assert "models to merge: nothing was found; give MODELS" in err
    models = [str(tiny / name) for name in "ab"]
    _, err = command_line.run("study", "init", *models, "--yes", code=2)
    assert "data: nothing was found; give --data" in err
    (tmp_path / "d.csv").write_text("question,answer\n" + "".join(f"w{n},8\n" for n in range(9)))
    _, err = command_line.run("study", "init", *models, "--language", "xx", "--yes", code=2)
    assert "--language: lid.176 does not know 'xx'" in err
    assert not list(tmp_path.glob("*.yaml"))


def test_what_cannot_be_merged_is_not_written(folder: Path, command_line: CommandLine) -> None:
    (folder / "sums.csv").write_text("question,answer\n" + "same ?,8\n" * 10)
    _, err = command_line.run("study", "init", "--yes", code=2)
    assert "splits must not overlap" in err and not list(folder.glob("*.yaml"))


def test_adapters(folder: Path, command_line: CommandLine) -> None:
    for seed, name in enumerate(("one", "two")):
        shutil.rmtree(folder / "ab"[seed])
        save_adapter(folder / name, folder / "m", seed)
    command_line.run("study", "init", "--yes", "--minutes", "1")
    spec = load_spec(folder / "sums-merge.yaml")
    assert isinstance(spec, AdapterStudySpec) and spec.base_model == str(folder / "m")
    assert list(spec.models.values()) == [f"{folder / 'm'}+{folder / n}" for n in ("one", "two")]


def test_pipelines(pipelines: Path, tmp_path: Path, command_line: CommandLine) -> None:
    for name in ("base", "a", "b"):
        shutil.copytree(pipelines / name, tmp_path / name)
    colours = ("red", "blue")
    prompts = [
        f"a {c} {s}" + " a" * n for c in colours for s in ("circle", "square") for n in (0, 1)
    ]
    (tmp_path / "p.csv").write_text("prompt\n" + "\n".join(prompts) + "\n")
    (tmp_path / "mine.py").write_text("def score(images, rows): return [1.0 for _ in images]\n")
    command_line.run("study", "init", "--yes", "--judge", "mine:score", "--minutes", "1")
    content = yaml.safe_load((tmp_path / "p-merge.yaml").read_text())
    assert content["base_model"] == "./base" and list(content["models"]) == ["a", "b"]
    assert content["objectives"] == [{"maximize": "p.own"}]


CTRL_C = "\x03"


def _have_a_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores


def on_a_terminal(folder: Path, *steps: tuple[str, str]) -> tuple[int, str]:
    """The exit code of `study init`, and what somebody sees who types, once this is seen, that."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "evomerge_optuna", "study", "init", "--no-try"],
        cwd=folder,
        env={**os.environ, "EVOMERGE_HOME": str(folder / "home"), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=_have_a_terminal,
    )
    os.close(theirs)
    seen, left, typed = "", list(steps), ""
    while True:
        if left and left[0][0] in seen:
            typed = left.pop(0)[1]
            os.write(ours, typed.encode())
            continue
        if typed == CTRL_C and not select.select([ours], [], [], 1)[0]:
            os.write(ours, typed.encode())  # Python loses one that comes as it begins to read
            continue
        try:
            chunk = os.read(ours, 10_000)
        except OSError:  # of Linux, once the other end is closed
            break
        seen += chunk.decode()
    os.close(ours)
    return process.wait(), seen


def test_enter_all_the_way(folder: Path) -> None:
    code, seen = on_a_terminal(folder, ("Models to merge [a b]", "\n" * 8))
    assert code == 0, seen
    for question in ("Base model [m]", "Data [sums.csv]", "[generate]", "Minutes of search [30]"):
        assert question in seen
    assert list(load_spec(folder / "sums-merge.yaml").models) == ["a", "b"]
    again = ("Models to merge", "\n" * 5), ("Write over it? [y/N]", "y\n"), ("Minutes", "\n")
    code, seen = on_a_terminal(folder, *again)
    assert code == 0, seen


def test_ctrl_c_leaves_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    code, seen = on_a_terminal(folder, ("Models to merge", "\n"), ("Base model [", CTRL_C))
    assert code != 0 and "Aborted!" in seen
    assert sorted(folder.rglob("*")) == before


UNKNOWN = "番号,日本語の文,English text,結果の数\n" + "".join(
    f"{n},りんごが{n}個あります,There are {n} apples on the table,{n + 1}\n" for n in range(40)
)


def test_columns_whose_names_say_nothing_are_asked_for(folder: Path) -> None:
    (folder / "sums.csv").write_text(UNKNOWN)
    first = ("Models to merge", "\n" * 3), ("[perplexity]", "generate\n")
    asked = ("the questions (番号, ", "English text\n"), ("the answers (", "結果の数\n")
    code, seen = on_a_terminal(folder, *first, *asked, ("Language", "\n"), ("Minutes", "\n"))
    assert code == 0, seen
    task = load_spec(folder / "sums-merge.yaml").tasks["sums"]
    assert isinstance(task, GenerateTask)
    assert (task.prompt, task.answer) == ("{English text}", "結果の数")


def test_columns_are_said_by_options(folder: Path, command_line: CommandLine) -> None:
    (folder / "sums.csv").write_text(UNKNOWN)
    arguments = ["study", "init", "--yes", "--no-try", "--goal", "generate"]
    _, err = command_line.run(*arguments, code=2)
    assert "no column looks like the question" in err and "give --question COLUMN" in err
    command_line.run(*arguments, "--question", "日本語の文", "--answer", "結果の数")
    content = yaml.safe_load((folder / "sums-merge.yaml").read_text())
    assert content["tasks"]["sums"]["prompt"] == "{日本語の文}"
