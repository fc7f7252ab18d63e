"""The list of studies, as a table and as JSON: apart, so that `study list` imports little."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.table import Table

from evomerge_optuna.report.columns import table_with
from evomerge_optuna.study.studies import StudySummary


def studies_table(summaries: Sequence[StudySummary]) -> Table:
    table = table_with("study", "stage", "objective", "trials", "best", "started")
    for s in summaries:
        table.add_row(
            escape(s.name),
            s.stage,
            s.objective,
            f"{s.trials}/{s.wanted}",
            "-" if s.best is None else f"{s.best:.4g}",
            "-" if s.started is None else f"{s.started:%Y-%m-%d %H:%M}",
        )
    return table


def studies_json(summaries: Sequence[StudySummary]) -> list[dict[str, Any]]:
    return [
        {**asdict(s), "started": None if s.started is None else s.started.isoformat()}
        for s in summaries
    ]
