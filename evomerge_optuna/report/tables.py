"""Tables for the terminal, and the same content as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from optuna.trial import TrialState
from rich.markup import escape
from rich.table import Table

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.study.final import FinalScores, stored_final_scores
from evomerge_optuna.study.objective import DIGEST, SCORES
from evomerge_optuna.study.studies import ERROR, MergeStudy, StudySummary, summarize

SHOWN_TRIALS = 5


def studies_table(summaries: Sequence[StudySummary]) -> Table:
    table = _table("study", "stage", "objective", "trials", "best", "started")
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


def final_table(spec: StudySpec, rows: Sequence[FinalScores]) -> Table:
    """The objective's metric for each contestant and split, with 95% intervals."""
    target = spec.objective.target
    splits = list(rows[0].scores) if rows else []
    table = _table("model", *(_split_title(rows, split, target) for split in splits))
    table.title = f"{escape(spec.study)}: {target} with 95% intervals"
    for row in rows:
        cells = [show_score(row.scores[split].get(target), target) for split in splits]
        table.add_row(escape(row.name), *cells)
    return table


def final_json(spec: StudySpec, rows: Sequence[FinalScores]) -> dict[str, Any]:
    return {
        "study": spec.study,
        "objective": spec.objective.target,
        "scores": {
            row.name: {
                split: {metric: _score_json(score) for metric, score in scores.items()}
                for split, scores in row.scores.items()
            }
            for row in rows
        },
    }


def study_table(merge_study: MergeStudy) -> Table:
    """The best trials of a study, the best first."""
    target = merge_study.spec.objective.target
    table = _table("trial", f"{target} (search)", "95% interval", "sha256")
    for trial in _best_trials(merge_study):
        score = Score(**trial.user_attrs[SCORES][target])
        table.add_row(
            str(trial.number),
            _number(score.value, target),
            f"{_number(score.low, target)} to {_number(score.high, target)}",
            trial.user_attrs[DIGEST][:12],
        )
    return table


def study_json(merge_study: MergeStudy) -> dict[str, Any]:
    """The study: its spec, its counts, all its trials, and final scores as far as stored."""
    best = merge_study.best()
    final = stored_final_scores(merge_study, best) if best else []
    return {
        **studies_json([summarize(merge_study)])[0],
        "states": state_counts(merge_study),
        "best_trial": None if best is None else best.number,
        "spec": merge_study.spec.model_dump(mode="json", by_alias=True),
        "final": final_json(merge_study.spec, final)["scores"],
        "trials_by_number": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "values": trial.values,
                "parameters": trial.params,
                "sha256": trial.user_attrs.get(DIGEST),
                "error": trial.user_attrs.get(ERROR),
            }
            for trial in merge_study.trials()
        ],
    }


def state_counts(merge_study: MergeStudy) -> dict[str, int]:
    """Trials by state; interrupted ones, which others repeat, on their own."""
    trials = merge_study.trials()
    counts = {
        state.name.lower(): sum(t.state is state for t in trials)
        for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    }
    total = len(merge_study.study.get_trials(deepcopy=False))
    return {**counts, "interrupted": total - len(trials)}


def show_score(score: Score | None, metric: str) -> str:
    """'69.2% (65.0 to 73.1)', or a plain number for what is no share."""
    if score is None:
        return "-"
    low, high = (_number(x, metric).removesuffix("%") for x in (score.low, score.high))
    return f"{_number(score.value, metric)} ({low} to {high})"


def _split_title(rows: Sequence[FinalScores], split: str, target: str) -> str:
    score = rows[0].scores[split].get(target)
    return split if score is None else f"{split} (n={score.n})"


def _best_trials(merge_study: MergeStudy) -> list[Any]:
    scored = [t for t in merge_study.trials() if t.state is TrialState.COMPLETE]
    sign = -1 if merge_study.spec.objective.direction == "maximize" else 1
    return sorted(scored, key=lambda t: (sign * t.values[0], t.number))[:SHOWN_TRIALS]


def _score_json(score: Score) -> dict[str, float | None]:
    """JSON has neither NaN nor infinity; null stands for them."""
    return {name: x if math.isfinite(x) else None for name, x in asdict(score).items()}


def _number(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3f}" if metric.endswith("perplexity") else f"{100 * value:.1f}%"


def _table(*columns: str) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 else "right")
    return table
