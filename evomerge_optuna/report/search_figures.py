"""Figures of how a search went: every trial, the front of two objectives, what mattered. Plotly."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from evomerge_optuna.spec import Metric, Objective
from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.trials import Trials

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUIET, LOUD, _GIVEN, _CHOSEN = "#8fa3b8", "#2f7ed8", "#e08a1e", "#d6336c"
_ENOUGH = 20  # trials, before which an importance is an accident
_SHOWN = 12  # parameters
_NEAR = 0.06  # of the height, the least between two labels


def history_figure(
    trials: Trials, chosen: FrozenTrial, metric: Metric | None, lines: Mapping[str, float]
) -> "go.Figure":
    """The first objective of every scored trial, the best so far, and the baselines.

    Args:
        metric: the objective's; None: it is a cost.
        lines: scores of other models on the same problems, by their names: a line across each.
    """
    import plotly.graph_objects as go

    objective = trials.objectives[0]
    drawn = [t for t in trials.rankable if BASELINE not in t.user_attrs]
    given = [t for t in trials.rankable if BASELINE in t.user_attrs]
    better = max if objective.sign > 0 else min
    best = list(accumulate((t.values[0] for t in trials.rankable), better))
    figure = go.Figure()
    figure.add_scatter(**_points(drawn, "trial", QUIET, "circle", 6))
    figure.add_scatter(
        x=[t.number for t in trials.rankable],
        y=best,
        name="best so far",
        mode="lines",
        line={"shape": "hv", "color": LOUD, "width": 2},
    )
    figure.add_scatter(**_points(given, "given at the start", _GIVEN, "diamond", 8))
    figure.add_scatter(**_points([chosen], "the result", _CHOSEN, "star", 14))
    for value in lines.values():
        figure.add_hline(y=value, line={"dash": "dot", "width": 1, "color": QUIET})
    is_log = metric is not None and metric.kind == "perplexity"  # whose worst values are huge
    height = math.log10 if is_log else float  # of a label, which the axis does not do itself
    values = [height(y) for y in (*(t.values[0] for t in trials.rankable), *lines.values())]
    heights = {name: height(value) for name, value in lines.items()}
    for names, value in _labels(heights, _NEAR * (max(values) - min(values))):
        figure.add_annotation(
            **{"x": 1, "xref": "paper", "xanchor": "right", "y": value, "yanchor": "bottom"},
            text=names,
            showarrow=False,
        )
    figure.update_layout(xaxis_title="trial", yaxis_title=f"{objective.target} on search")
    figure.update_yaxes(type="log" if is_log else "linear")
    in_percent(figure, metric)
    return figure


def _labels(lines: Mapping[str, float], near: float) -> Iterator[tuple[str, float]]:
    """The names of lines, those of one label where they are near each other, and its height."""
    names: list[str] = []
    top = 0.0
    for name in sorted(lines, key=lambda name: lines[name]):
        if names and lines[name] - top > near:
            yield ", ".join(names), top
            names = []
        names.append(name)
        top = lines[name]
    if names:
        yield ", ".join(names), top


def in_percent(figure: "go.Figure", metric: Metric | None, across: Metric | None = None) -> None:
    """Has shares and grades in percent, as tables have them.

    Args:
        metric: of the vertical axis.
        across: of the horizontal one.
    """
    for update, shown in ((figure.update_yaxes, metric), (figure.update_xaxes, across)):
        if shown is not None and shown.kind in ("share", "grade"):
            update(tickformat=".0%")


def front_figure(
    trials: Trials, chosen: FrozenTrial, metrics: Sequence[Metric | None]
) -> "go.Figure":
    """Every scored trial by its two objectives, and the Pareto front among them.

    Args:
        metrics: of both objectives; None: it is a cost.
    """
    import plotly.graph_objects as go

    first, second = trials.objectives
    front = sorted(trials.front, key=lambda t: t.values[1])
    drawn = [t for t in trials.rankable if BASELINE not in t.user_attrs]
    given = [t for t in trials.rankable if BASELINE in t.user_attrs]
    figure = go.Figure()
    figure.add_scatter(**_points(drawn, "trial", QUIET, "circle", 6, (1, 0)))
    figure.add_scatter(**_points(given, "given at the start", _GIVEN, "diamond", 8, (1, 0)))
    figure.add_scatter(
        **_points(front, "Pareto front", LOUD, "circle", 9, (1, 0))
        | {"mode": "lines+markers", "line": {"shape": _corner(second), "color": LOUD}}
    )
    figure.add_scatter(**_points([chosen], "the result", _CHOSEN, "star", 14, (1, 0)))
    figure.update_layout(xaxis_title=second.target, yaxis_title=f"{first.target} on search")
    in_percent(figure, *metrics)
    return figure


def importances(trials: Trials) -> dict[str, float]:
    """How much of the search's good trials each parameter explains; none where trials are few.

    By PED-ANOVA (Watanabe et al. 2023), which takes no time; of the first objective.
    """
    import warnings

    import optuna

    if len(trials.rankable) < _ENOUGH:
        return {}
    objective = trials.objectives[0]
    study = optuna.create_study(direction=objective.direction)
    study.add_trials(
        [
            optuna.trial.create_trial(
                value=t.values[0], params=t.params, distributions=t.distributions
            )
            for t in trials.rankable
        ]
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):  # all trials are equally good, or no parameter is in all
        return {}
    return dict(sorted(found.items(), key=lambda item: -item[1])[:_SHOWN])


def importance_figure(found: Mapping[str, float]) -> "go.Figure":
    """A bar for each parameter, the most important on top."""
    import plotly.graph_objects as go

    names = list(found)[::-1]
    figure = go.Figure()
    figure.add_bar(
        x=[found[name] for name in names], y=names, orientation="h", marker={"color": LOUD}
    )
    figure.update_layout(xaxis_title="importance", height=120 + 26 * len(names))
    figure.update_yaxes(automargin=True)
    return figure


def _points(
    trials: list[FrozenTrial],
    name: str,
    color: str,
    symbol: str,
    size: int,
    axes: tuple[int | None, int] = (None, 0),
) -> dict[str, Any]:
    """A scatter of trials: over their numbers, or over one of their objectives."""
    x, y = axes
    return {
        "x": [t.number if x is None else t.values[x] for t in trials],
        "y": [t.values[y] for t in trials],
        "text": [f"trial {t.number} {t.user_attrs.get(BASELINE, '')}" for t in trials],
        "name": name,
        "mode": "markers",
        "marker": {"color": color, "symbol": symbol, "size": size},
        "hovertemplate": "%{text}: %{y:.4g}<extra></extra>",
    }


def _corner(across: Objective) -> str:
    """How a front's steps go, so that what they enclose is what they dominate.

    Args:
        across: the objective of the horizontal axis.
    """
    return "hv" if across.sign < 0 else "vh"
