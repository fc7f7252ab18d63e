"""The command line and the functions for scripts do the same; they differ in printing alone.

Covers `api` and `cli.studies`, too.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from evomerge_optuna import api
from evomerge_optuna.cli import main
from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.studies import open_study
from tests.conftest import CommandLine
from tests.forked import processes

CODE = """
def score(model, tokenizer, rows):
    return [1.5] * len(rows)

def fail(model, tokenizer, rows):
    return [float("nan")] * len(rows)
"""


@dataclass(frozen=True)
class Situation:
    """A study, and one call that runs it.

    Attributes:
        code: the exit code.
        says: a piece of the last line.
        function: of a python task that scores the study; None: it is scored by perplexity.
        begun: trials that were run before.
        changed: parts of the spec that are others than then.
        by_name: the study is named, not given by its spec.
    """

    options: dict[str, Any]
    code: int
    says: str
    function: str | None = None
    begun: int = 0
    changed: dict[str, Any] = field(default_factory=dict)
    by_name: bool = False


SITUATIONS = {
    "new": Situation({"trials": 2}, 0, "tiny: 2 trials; best words.perplexity"),
    "done": Situation({"trials": 1}, 0, "tiny: 1 trials", begun=1),
    # One trial, since what a second one draws depends on whether the first has ended.
    "workers": Situation({"trials": 1, "workers": 2}, 0, "tiny: 1 trials"),
    "no time": Situation({"timeout": 0.0}, 0, "continue with: evomerge-optuna study run tiny"),
    "not stored": Situation({}, 2, "there is no study 'tiny'", by_name=True),
    "changed": Situation(
        {"trials": 1}, 2, "sampler.seed: 1 -> 5", begun=1, changed={"sampler": {"seed": 5}}
    ),
    "no score": Situation({"trials": 2}, 1, "none of 2 candidates could be scored", "fail"),
    "code not allowed": Situation(
        {"trials": 2}, 2, "would run the code of own_scores:score", "score", 1, by_name=True
    ),
    "code allowed": Situation(
        {"trials": 2, "allow_code": True}, 0, "best own.score 1.5", "score", 1, by_name=True
    ),
    "no trials": Situation({"trials": 0}, 2, "trials: should be 1 or more, not 0"),
    "no workers": Situation({"workers": 0}, 2, "workers: should be 1 or more, not 0"),
    "no number": Situation({"timeout": float("nan")}, 2, "timeout: should be 0 or more, not nan"),
    "negative": Situation({"grace": -1.0}, 2, "grace: should be 0 or more, not -1.0"),
}

Run = Callable[..., tuple[int, list[str]]]  # exit code, and the lines that are said


def by_script(folder: Path, study: str, storage: str, **options: Any) -> tuple[int, list[str]]:
    """As a script does it, in a process of its own."""
    reader, writer = processes.Pipe(duplex=False)
    given = (writer, dict(os.environ), str(folder), study, storage, options)
    process = processes.Process(target=_script, args=given)
    process.start()
    writer.close()
    code, said = reader.recv()
    process.join()
    return code, said


def _script(
    writer: Connection,
    environment: dict[str, str],
    folder: str,
    study: str,
    storage: str,
    options: dict[str, Any],
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    said: list[str] = []
    code = 0
    try:
        api.run_study(study, storage, say=said.append, **options)
    except EvomergeError as error:
        code = error.exit_code
        said.append(f"Error: {' '.join(str(error).split())}")
    writer.send((code, said))


def by_command(command_line: CommandLine, study: str, storage: str, **options: Any) -> Any:
    words = ["study", "run", study, "--storage", storage]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)]
    command = command_line.start(*words)
    out, said = command.communicate()
    assert out == ""
    return command.returncode, said.splitlines()


def stored(storage: str) -> list[tuple[Any, ...]]:
    """The trials of the study, as far as there is one."""
    try:
        study = open_study(open_store(storage), "tiny")
    except EvomergeError:
        return []
    return [
        (trial.number, trial.state, trial.params, trial.values, trial.user_attrs.get("error"))
        for trial in study.study.get_trials()
    ]


@pytest.mark.parametrize("name", SITUATIONS)
def test_both_faces_do_the_same(
    name: str, command_line: CommandLine, spec_content: Callable[..., dict[str, Any]]
) -> None:
    situation, folder = SITUATIONS[name], command_line.folder
    (folder / "own_scores.py").write_text(CODE)

    def write(**parts: Any) -> str:
        content = spec_content(**parts)
        if situation.function is not None:
            task = content["tasks"]["words"] | {"type": "python"}
            task["function"] = f"own_scores:{situation.function}"
            content |= {"tasks": {"own": task}, "objectives": [{"maximize": "own.score"}]}
        file = folder / "tiny.yaml"
        file.write_text(yaml.safe_dump(content))
        return str(file)

    def after(face: str, run: Run) -> tuple[int, list[str], list[tuple[Any, ...]]]:
        storage = f"sqlite:///{folder / face}.db"
        if situation.begun:
            assert by_script(folder, write(), storage, trials=situation.begun)[0] == 0
        study = "tiny" if situation.by_name else write(**situation.changed)
        code, said = run(study, storage, **situation.options)
        return code, [line.replace(face, "FACE") for line in said], stored(storage)

    code, said, trials = after("script", lambda *a, **o: by_script(folder, *a, **o))
    command_code, printed, command_trials = after(
        "command", lambda *a, **o: by_command(command_line, *a, **o)
    )
    assert code == command_code == situation.code
    if "workers" in situation.options:  # what several draw depends on who is first
        trials, command_trials = ([trial[:2] for trial in t] for t in (trials, command_trials))
    assert trials == command_trials
    assert situation.says in said[-1]
    # A command that goes on has the options of this one, too.
    assert any(line.startswith(said[-1]) for line in printed)


def test_wrong_limits_are_refused_before_a_database_is_made(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    with pytest.raises(UsageError, match="trials: should be 1 or more, not 0"):
        api.run_study("tiny", storage, trials=0)
    words = ["study", "run", "tiny", "--storage", storage, "--grace", "-1"]
    found = CliRunner().invoke(main, words)
    assert (found.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "grace: should be 0 or more, not -1.0" in found.output
