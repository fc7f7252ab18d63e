"""Pages of the documentation, done as a reader does them: line by line, in a folder."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import CommandLine

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
NOT_RUN = "*Not run by the tests, because "  # in the words before a block, for the reader, too


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Args:
        kind: `sh`, `yaml`, `py`, `diff` ...
        title: the name of the file that it is, or changes.
        is_run: does the page say nothing else?
    """

    kind: str
    title: str
    text: str
    is_run: bool

    @property
    def lines(self) -> Iterator[str]:
        """The commands of a block of the shell."""
        for line in self.text.replace("\\\n", " ").splitlines():
            if shlex.split(line, comments=True):
                yield line


def blocks(page: str) -> list[Block]:
    """All blocks of a page of docs/, in their order."""
    text, found, end = (DOCS / page).read_text(), [], 0
    for match in BLOCK.finditer(text):
        kind, title, content = match.groups(default="")
        found.append(Block(kind, title, content, NOT_RUN not in text[end : match.start()]))
        end = match.end()
    return found


def extend(folder: Path, *pages: str) -> None:
    """Copies the package into the folder and changes it as the pages say."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "evomerge_optuna", folder / "evomerge_optuna", ignore=skipped)
    for block in (block for page in pages for block in blocks(page) if block.title):
        file = folder / block.title
        if block.kind == "diff":
            file.write_text(changed(file.read_text(), block.text))
        else:
            assert not file.exists()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)


def changed(text: str, difference: str) -> str:
    """The text after a difference in the unified form, without the numbers of its lines."""
    lines = difference.splitlines(keepends=True)
    before, after = ("".join(x[1:] for x in lines if x[0] in kept) for kept in (" -", " +"))
    assert text.count(before) == 1, f"these lines are there {text.count(before)} times:\n{before}"
    return text.replace(before, after)


def do(page: str, command_line: CommandLine, afresh: bool = False) -> list[str]:
    """Runs every line of a page in the command line's folder, and writes the files that it shows.

    Files that are there already are left: stand-ins, or what `extend` has made.

    Args:
        afresh: is there another copy of the package in the folder, which is to run?

    Returns:
        What each line printed, both streams together.
    """
    said = []
    for block in blocks(page):
        if block.title and block.kind != "diff":
            file = command_line.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                file.write_text(block.text)
        if block.kind == "sh" and block.is_run:
            said += [_do(line, command_line, afresh) for line in block.lines]
    return said


def _do(line: str, command_line: CommandLine, afresh: bool) -> str:
    first, *arguments = shlex.split(line, comments=True)
    if first == "evomerge-optuna":
        if afresh:
            process = command_line.start_afresh(*arguments)
            out, err = process.communicate()
            assert process.returncode == 0, f"{line}\n{out}\n{err}"
        else:
            out, err = command_line.run(*arguments)
        return out + err
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euc", line],
        cwd=command_line.folder,
        env={**os.environ, **command_line.variables, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout + ran.stderr
