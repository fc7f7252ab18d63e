"""What commands print: results to stdout, progress and remarks to stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from evomerge_optuna.study.studies import MergeStudy


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
    """Shows a progress line with the best score so far; yields a function that updates it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from evomerge_optuna.report.outcome import best_so_far

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    with Progress(*columns, console=_console()) as progress:
        task = progress.add_task(merge_study.name, total=wanted, best="")

        def show() -> None:
            trials = merge_study.read()
            progress.update(
                task,
                description=merge_study.name,
                completed=trials.finished,
                best=best_so_far(trials),
            )

        show()
        yield show


def print_line(line: str) -> None:
    if line:
        click.echo(line)
