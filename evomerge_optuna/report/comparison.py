"""The report of `study compare`: one HTML file that needs nothing else."""

from collections.abc import Sequence
from html import escape
from io import StringIO
from pathlib import Path

from rich.console import Console

from evomerge_optuna.report.figures import progress_figure, scores_figure
from evomerge_optuna.report.sheets import Sheet
from evomerge_optuna.report.tables import comparison_tables
from evomerge_optuna.results.compare import Comparison

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2em auto; max-width: 70em }}</style></head>
<body><h1>{title}</h1>{body}</body></html>
"""


def write_report(comparison: Comparison, file: Path, sheets: Sequence[Sheet] = ()) -> None:
    """Writes tables and figures of a comparison.

    Args:
        sheets: contact sheets of the studies.

    Raises:
        OSError: the file cannot be written.
    """
    target = comparison.target
    figures = [
        progress_figure(comparison.progress, target, over="trials"),
        progress_figure(comparison.progress, target, over="seconds"),
    ]
    tested = {row.name: row.scores[target] for row in comparison.tested if target in row.scores}
    if tested:
        figures.insert(0, scores_figure(tested, f"{target} on test"))
    # Plotly itself comes with the first figure.
    shown = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0)
        for number, figure in enumerate(figures)
    ]
    title = f"Comparison of {', '.join(comparison.progress)}"
    pictures = [sheet.html() for sheet in sheets]
    body = _tables(comparison) + "".join([*pictures, *shown])
    file.write_text(_PAGE.format(title=escape(title), body=body), encoding="utf-8")


def _tables(comparison: Comparison) -> str:
    console = Console(record=True, width=140, file=StringIO())
    for table in comparison_tables(comparison):
        console.print(table)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")
