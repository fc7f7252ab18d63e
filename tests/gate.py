"""A task at which every trial waits to be let through: a test has the trials in its hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MODULE = "gate"
CODE = """
import os, time
from contextlib import suppress
from pathlib import Path

FOLDER = Path({folder!r})


def wait(model, tokenizer, rows):
    waiting = FOLDER / f"waiting-{{os.getpid()}}"
    waiting.touch()
    while not (FOLDER / "open").exists() and not take_pass():
        time.sleep(0.01)
    waiting.unlink()
    return [0.0] * len(rows)


def take_pass():
    for file in FOLDER.glob("pass-*"):
        with suppress(FileNotFoundError):  # another was quicker
            file.unlink()
            return True
    return False
"""


@dataclass
class Gate:
    """A python task, whose module is in the folder in which the command line runs."""

    folder: Path
    passes: int = 0

    @classmethod
    def build(cls, folder: Path) -> "Gate":
        (gate := folder / "gate").mkdir()
        (folder / f"{MODULE}.py").write_text(CODE.format(folder=str(gate)))
        return cls(gate)

    def before(self, content: dict[str, Any]) -> dict[str, Any]:
        """The spec, each of whose trials waits."""
        (task, *_) = content["tasks"].values()
        data = {"search": task["data"]["search"]}
        gate = {"type": "python", "data": data, "function": f"{MODULE}:wait"}
        return {**content, "tasks": {**content["tasks"], "gate": gate}}

    def let(self, trials: int) -> None:
        """Lets so many more trials through."""
        for _ in range(trials):
            self.passes += 1
            (self.folder / f"pass-{self.passes}").touch()

    def open(self) -> None:
        """Lets all through from now on."""
        (self.folder / "open").touch()

    def passed(self) -> int:
        """How many passes were taken."""
        return self.passes - len(list(self.folder.glob("pass-*")))

    def waiting(self) -> int:
        """How many living processes wait with a trial."""
        found = (int(file.name.split("-")[1]) for file in self.folder.glob("waiting-*"))
        return sum(map(psutil.pid_exists, found))
