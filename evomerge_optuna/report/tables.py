"""Tables for the terminal, and the same content as JSON."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.markup import escape
from rich.table import Table

from evomerge_optuna.evaluation.evaluator import Evaluation
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.spec import Objective, StudySpec
from evomerge_optuna.study.compare import Comparison
from evomerge_optuna.study.final import FinalScores, stored_final_scores
from evomerge_optuna.study.front import knee
from evomerge_optuna.study.objective import COSTS, DIGEST, SCORES
from evomerge_optuna.study.studies import BASELINE, ERROR, MergeStudy, StudySummary, summarize

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


def evaluation_table(model: str, evaluation: Evaluation) -> Table:
    """Every metric of a model on one split, with 95% intervals."""
    table = _table("metric", "n", f"score on {evaluation.split}")
    table.title = escape(model)
    for metric, score in evaluation.scores.items():
        table.add_row(metric, str(score.n), show_score(score, metric))
    return table


def evaluation_json(model: str, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "model": model,
        "split": evaluation.split,
        "scores": {metric: _score_json(score) for metric, score in evaluation.scores.items()},
    }


def study_table(merge_study: MergeStudy) -> Table:
    """The best trials of a study, or its Pareto front with the knee marked; then its baselines."""
    spec, front = merge_study.spec, merge_study.front()
    several = len(spec.objectives) > 1
    titles = [o.target if o.is_cost else f"{o.target} (search)" for o in spec.objectives]
    table = _table("trial", *titles, "sha256")
    middle = knee(merge_study, front).number if several and front else None

    def add(trial: FrozenTrial, remark: str) -> None:
        values = [show_value(trial, objective) for objective in spec.objectives]
        table.add_row(f"{trial.number}{remark}", *values, trial.user_attrs[DIGEST][:12])

    for trial in front if several else merge_study.ranked()[:SHOWN_TRIALS]:
        add(trial, " (knee)" if trial.number == middle else "")
    table.add_section()
    for trial in merge_study.baselines():
        add(trial, f" ({escape(trial.user_attrs[BASELINE])})")
    return table


def study_json(merge_study: MergeStudy) -> dict[str, Any]:
    """The study: its spec, its counts, all its trials, and final scores as far as stored."""
    best = merge_study.best()
    final = stored_final_scores(merge_study, best) if best else []
    return {
        **studies_json([summarize(merge_study)])[0],
        "states": state_counts(merge_study),
        "best_trial": None if best is None else best.number,
        "front": [trial.number for trial in merge_study.front()],
        "spec": merge_study.spec.model_dump(mode="json", by_alias=True),
        "final": final_json(merge_study.spec, final)["scores"],
        "trials_by_number": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "values": trial.values,
                "parameters": trial.params,
                "sha256": trial.user_attrs.get(DIGEST),
                "baseline": trial.user_attrs.get(BASELINE),
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


def show_value(trial: FrozenTrial, objective: Objective) -> str:
    """A score with its interval, or a cost."""
    if (score := trial.user_attrs[SCORES].get(objective.target)) is not None:
        return show_score(Score(**score), objective.target)
    return f"{trial.user_attrs[COSTS][objective.target]:,g}"


def _score_json(score: Score) -> dict[str, float | None]:
    """JSON has neither NaN nor infinity; null stands for them."""
    return {name: x if math.isfinite(x) else None for name, x in asdict(score).items()}


def _number(value: float, metric: str) -> str:
    if not math.isfinite(value):
        return str(value)
    if metric.endswith((".perplexity", ".score")):
        return f"{value:.3f}"
    return f"{100 * value:.1f}%"


def _table(*columns: str) -> Table:
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 else "right")
    return table


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Test scores, paired tests, and, for several objectives, hypervolumes."""
    target = comparison.target
    tested = _table("model", f"{target} on test")
    tested.title = "Test scores with 95% intervals, as far as study test has made them"
    for row in comparison.tested:
        tested.add_row(escape(row.name), show_score(row.scores.get(target), target))
    paired = _table("on the same problems", "only the first right", "only the second", "p")
    paired.title = "Exact binomial test of the problems on which two differ (McNemar)"
    for pair in comparison.paired:
        names = f"{pair.first} / {pair.second}"
        paired.add_row(escape(names), str(pair.only_first), str(pair.only_second), f"{pair.p:.2g}")
    searched = _table("study", "trials", "minutes", f"best {target} on search")
    for name, progress in comparison.progress.items():
        if progress.best:
            minutes = f"{progress.seconds[-1] / 60:.1f}"
            best = _number(progress.best[-1], target)
            searched.add_row(escape(name), str(progress.trials[-1]), minutes, best)
    volumes = _table("study", "hypervolume")
    for name, volume in comparison.hypervolumes.items():
        volumes.add_row(escape(name), f"{volume:.4g}")
    return [table for table in (searched, tested, paired, volumes) if table.row_count]


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "objective": comparison.target,
        "progress": {name: asdict(progress) for name, progress in comparison.progress.items()},
        "test": {
            row.name: {metric: _score_json(score) for metric, score in row.scores.items()}
            for row in comparison.tested
        },
        "paired": [asdict(pair) for pair in comparison.paired],
        "hypervolume": comparison.hypervolumes,
    }
