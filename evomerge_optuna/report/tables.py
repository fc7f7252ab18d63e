"""Tables for the terminal, and the same content as JSON."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.markup import escape
from rich.table import Table

from evomerge_optuna.evaluation.evaluator import Evaluation
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.report.columns import table_with
from evomerge_optuna.report.gap import Gap, gaps
from evomerge_optuna.report.numbers import (
    show_number,
    show_score,
    show_score_and_n,
    worth_showing,
)
from evomerge_optuna.report.study_list import studies_json
from evomerge_optuna.results.chosen_trial import chosen_trial, is_chosen_on_dev, knee
from evomerge_optuna.results.compare import Comparison
from evomerge_optuna.results.final_scores import FinalScores, stored_final_scores
from evomerge_optuna.spec import SPLITS, Objective, StudySpec
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import BASELINE, ERROR, RESULT, STOPPED
from evomerge_optuna.study.studies import MergeStudy, summarize

SHOWN_TRIALS = 5


def final_table(name: str, spec: StudySpec, rows: Sequence[FinalScores]) -> Table:
    """The objective's metric for each model and split, with 95% intervals.

    Args:
        name: the study's.
    """
    target = spec.objective.target
    by_split = {s: {r.name: r.scores.get(s, {}).get(target) for r in rows} for s in SPLITS}
    shown = {split: scores for split, scores in by_split.items() if any(scores.values())}
    table = table_with("model", *(_split_title(split, scores) for split, scores in shown.items()))
    metric = spec.metric(target)
    table.title = f"{escape(name)}: {target} with 95% intervals"
    for row in rows:
        cells = [show_score(scores[row.name], metric) for scores in shown.values()]
        table.add_row(escape(row.name), *cells)
    return table


def final_json(name: str, spec: StudySpec, rows: Sequence[FinalScores]) -> dict[str, Any]:
    """The scores of all models; the last one's gap between search and the other splits."""
    objective = spec.objective
    gap = gaps(objective, spec.metric(objective.target), rows[-1]) if rows else []
    return {
        "study": name,
        "objective": objective.target,
        "scores": {
            row.name: {
                split: {metric: _finite(score) for metric, score in scores.items()}
                for split, scores in row.scores.items()
            }
            for row in rows
        },
        "gap": [_finite(found) for found in gap],
    }


def evaluation_table(model: str, spec: StudySpec, evaluation: Evaluation) -> Table:
    """Every metric of a model on one split, with 95% intervals."""
    table = table_with("metric", "n", f"score on {evaluation.split}")
    table.title = escape(model)
    for target, score in worth_showing(evaluation.scores).items():
        table.add_row(target, str(score.n), show_score(score, spec.metric(target)))
    return table


def evaluation_json(model: str, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "model": model,
        "split": evaluation.split,
        "scores": {metric: _finite(score) for metric, score in evaluation.scores.items()},
    }


def study_table(merge_study: MergeStudy) -> Table:
    """The best trials of a study, or its Pareto front with the knee marked; then its baselines.

    Where dev has chosen one of them, that one is marked, too.
    """
    spec, front = merge_study.spec, merge_study.front()
    several = len(spec.objectives) > 1
    titles = [o.target if o.is_cost else f"{o.target} (search)" for o in spec.objectives]
    table = table_with("trial", *titles, "sha256")
    middle = knee(merge_study, front).number if several and front else None
    chosen = chosen_trial(merge_study) if is_chosen_on_dev(merge_study) else None

    def add(trial: FrozenTrial, remark: str) -> None:
        values = [show_value(spec, trial, objective) for objective in spec.objectives]
        table.add_row(f"{trial.number}{remark}", *values, result_of(trial).sha256[:12])

    for trial in front if several else merge_study.ranked()[:SHOWN_TRIALS]:
        knee_mark = " (knee)" if trial.number == middle else ""
        add(trial, knee_mark + (" (best on search and dev)" if trial == chosen else ""))
    table.add_section()
    for trial in merge_study.read().baselines:
        add(trial, f" ({escape(str(trial.user_attrs[BASELINE]))})")
    return table


def study_json(merge_study: MergeStudy) -> dict[str, Any]:
    """The study: its spec, its counts, all its trials, and final scores as far as stored."""
    best = chosen_trial(merge_study)
    rows = stored_final_scores(merge_study, best) if best else []
    final = final_json(merge_study.name, merge_study.spec, rows)
    return {
        **studies_json([summarize(merge_study)])[0],
        "states": state_counts(merge_study),
        "foreign": sorted(merge_study.read().foreign),
        "best_trial": None if best is None else best.number,
        "front": [trial.number for trial in merge_study.front()],
        "spec": merge_study.spec.model_dump(mode="json", by_alias=True),
        "final": final["scores"],
        "gap": final["gap"],
        "trials_by_number": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "values": trial.values,
                "parameters": trial.params,
                "sha256": result_of(trial).sha256 if RESULT in trial.user_attrs else None,
                "baseline": trial.user_attrs.get(BASELINE),
                "error": trial.user_attrs.get(ERROR),
                "stopped_after": trial.user_attrs.get(STOPPED),
            }
            for trial in merge_study.trials()
        ],
    }


def state_counts(merge_study: MergeStudy) -> dict[str, int]:
    """Trials by state; interrupted ones, which others repeat, on their own."""
    trials = merge_study.read()
    counts = {
        state.name.lower(): sum(t.state is state for t in trials.counted)
        for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING)
    }
    return {**counts, "interrupted": len(trials.own) - len(trials.counted)}


def _split_title(split: str, scores: Mapping[str, Score | None]) -> str:
    """With the number of problems; of rows that differ in it each has its own."""
    counts = {score.n for score in scores.values() if score is not None}
    return f"{split} (n={' to '.join(str(n) for n in sorted({min(counts), max(counts)}))})"


def show_value(spec: StudySpec, trial: FrozenTrial, objective: Objective) -> str:
    """A score with its interval and the number of problems, or a cost."""
    result = result_of(trial)
    if (score := result.scores.get(objective.target)) is not None:
        return show_score_and_n(score, spec.metric(objective.target))
    return f"{result.costs[objective.target]:,g}"


def _finite(found: Score | Gap) -> dict[str, Any]:
    """JSON has neither NaN nor infinity; null stands for them."""
    return {
        name: None if isinstance(x, float) and not math.isfinite(x) else x
        for name, x in asdict(found).items()
    }


def comparison_tables(comparison: Comparison) -> list[Table]:
    """Test scores, paired tests, and, for several objectives, hypervolumes."""
    target = comparison.target
    tested = table_with("model", f"{target} on test")
    tested.title = "Test scores with 95% intervals, from study test"
    for row in comparison.tested:
        tested.add_row(
            escape(row.name), show_score_and_n(row.scores.get(target), comparison.metric)
        )
    paired = table_with("on the same problems", "only the first right", "only the second", "p")
    paired.title = "Exact binomial test of the problems on which two differ (McNemar)"
    for pair in comparison.paired:
        names = f"{pair.first} / {pair.second}"
        paired.add_row(escape(names), str(pair.only_first), str(pair.only_second), f"{pair.p:.2g}")
    searched = table_with("study", "trials", "minutes", f"best {target} on search")
    for name, progress in comparison.progress.items():
        if progress.best:
            minutes = f"{progress.seconds[-1] / 60:.1f}"
            best = show_number(progress.best[-1], comparison.metric)
            searched.add_row(escape(name), str(progress.trials[-1]), minutes, best)
    volumes = table_with("study", "hypervolume")
    for name, volume in comparison.hypervolumes.items():
        volumes.add_row(escape(name), f"{volume:.4g}")
    return [table for table in (searched, tested, paired, volumes) if table.row_count]


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "objective": comparison.target,
        "progress": {name: asdict(progress) for name, progress in comparison.progress.items()},
        "test": {
            row.name: {metric: _finite(score) for metric, score in row.scores.items()}
            for row in comparison.tested
        },
        "paired": [asdict(pair) for pair in comparison.paired],
        "hypervolume": comparison.hypervolumes,
    }
