"""What commands print: results to stdout, progress and remarks to stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from evomerge_optuna.study.studies import MergeStudy
    from evomerge_optuna.study.trials import Trials

    # Is given a study's name, its trials as they are now, and how many are wanted in all.
    Update = Callable[[str, Trials, int], None]

_PARTS = 10  # of a run, after each of which a line is printed where there is no terminal
_MINUTE = 60.0


@cache
def _console() -> "Console":
    """The console for progress and remarks, on stderr."""
    from rich.console import Console

    return Console(stderr=True)


def say(line: str) -> None:
    """Prints a remark, above the progress line."""
    _console().print(line, highlight=False, markup=False, soft_wrap=True)


def print_result(result: object) -> None:
    """Prints tables as they are, and anything else as one JSON document."""
    from rich.console import Console, Group
    from rich.table import Table

    if isinstance(result, Table | Group):
        # A pipe has no width of its own; a table must not be cut for it.
        Console(width=None if sys.stdout.isatty() else 120).print(result)
    else:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))


@contextmanager
def progress_line(merge_study: "MergeStudy", wanted: int) -> Iterator[Callable[[], None]]:
    """Shows how far a study is while the block runs; yields a function that updates it.

    In a terminal that is a bar, and below it how the study stands; elsewhere a line now and then.
    """
    with _bar() if _console().is_terminal else _now_and_then() as update:

        def read() -> None:
            update(merge_study.name, merge_study.read(), wanted)

        read()
        yield read


def standing() -> AbstractContextManager["Update"]:
    """Shows how a study stands in a terminal; elsewhere a line whenever a trial has ended."""
    return _bar() if _console().is_terminal else nullcontext(_on_change())


@contextmanager
def _bar() -> Iterator["Update"]:
    from rich.console import RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.text import Text

    from evomerge_optuna.report.live import standing_line

    class Bar(Progress):
        below = ""

        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            yield Text(self.below)

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=_console()) as progress:
        task = progress.add_task("", total=1)

        def update(name: str, trials: "Trials", wanted: int) -> None:
            progress.below = standing_line(trials, wanted)
            progress.update(task, description=name, completed=trials.finished, total=wanted)

        yield update


@contextmanager
def _now_and_then() -> Iterator["Update"]:
    """A line after each tenth of the trials, and once a minute if there is anything new."""
    show = _on_change()
    shown, at = -1, 0.0

    def update(name: str, trials: "Trials", wanted: int) -> None:
        nonlocal shown, at
        finished, now = trials.finished, time.monotonic()
        is_first = shown < 0
        is_next = finished * _PARTS // wanted > shown * _PARTS // wanted
        if is_first or is_next or (finished > shown and now - at > _MINUTE):
            shown, at = finished, now
            if not is_first:
                show(name, trials, wanted)

    yield update


def _on_change() -> "Update":
    from evomerge_optuna.report.live import counted_line

    shown = -1

    def update(name: str, trials: "Trials", wanted: int) -> None:
        nonlocal shown
        if trials.finished != shown:
            shown = trials.finished
            say(counted_line(name, trials, wanted))

    return update


def print_line(line: str) -> None:
    if line:
        click.echo(line)
