"""Figures of a study: path, weights and densities, scores, progress, time. Plotly."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.results.progress import Progress
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import RESULT

if TYPE_CHECKING:
    import plotly.graph_objects as go


def path_figure(recipe: StackRecipe, aliases: dict[str, str]) -> "go.Figure":
    """Step on x, layer on y, a colour for each model, the input's scale as size (paper, figure 4).

    Args:
        aliases: names to show, by the recipe's names of models.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_scatter(
        x=list(range(1, len(recipe.steps) + 1)),
        y=[step.layer for step in recipe.steps],
        mode="lines",
        line={"color": "lightgrey", "width": 1},
        showlegend=False,
        hoverinfo="skip",
    )
    for model in recipe.models():
        passed = [(t, step) for t, step in enumerate(recipe.steps, start=1) if step.model == model]
        figure.add_scatter(
            x=[t for t, _ in passed],
            y=[step.layer for _, step in passed],
            mode="markers",
            name=aliases.get(model, model),
            marker={"size": [8 + 8 * abs(step.scale) for _, step in passed]},
            customdata=[step.scale for _, step in passed],
            hovertemplate="step %{x}: layer %{y}, input times %{customdata:.3f}",
        )
    figure.update_layout(
        title=f"Path of {len(recipe.steps)} layers; size: scale of the layer's input",
        xaxis_title="step",
        yaxis_title="layer",
        template="plotly_white",
    )
    return figure


def weights_figure(values: Mapping[str, float]) -> "go.Figure":
    """Heat map of a merge: weight and density of each source model and layer group.

    Args:
        values: the parameters of the recipe, named ALIAS.PARAMETER.GROUP.
    """
    from plotly.subplots import make_subplots

    kinds = _kinds(values)
    figure = make_subplots(rows=1, cols=len(kinds), subplot_titles=list(kinds))
    for column, (kind, (aliases, groups)) in enumerate(kinds.items(), start=1):
        figure.add_heatmap(
            z=[[values.get(f"{a}.{kind}.{g}") for g in groups] for a in aliases],
            x=groups,
            y=aliases,
            colorscale="Viridis",
            texttemplate="%{z:.2f}",
            showscale=False,
            row=1,
            col=column,
        )
    figure.update_layout(title="Merge of the best trial", template="plotly_white")
    return figure


def spread_figure(recipes: Sequence[Mapping[str, float]]) -> "go.Figure":
    """Distribution of each source model's weights and densities over several merges.

    Args:
        recipes: the parameters of each, named ALIAS.PARAMETER.GROUP.
    """
    from plotly.subplots import make_subplots

    kinds = _kinds([name for recipe in recipes for name in recipe])
    figure = make_subplots(rows=1, cols=len(kinds), subplot_titles=list(kinds))
    for column, (kind, (aliases, groups)) in enumerate(kinds.items(), start=1):
        for alias in aliases:
            names = [f"{alias}.{kind}.{group}" for group in groups]
            spread = [recipe[name] for recipe in recipes for name in names if name in recipe]
            figure.add_box(y=spread, name=alias, showlegend=False, row=1, col=column)
    figure.update_layout(title=f"Merges of the {len(recipes)} best trials", template="plotly_white")
    return figure


def _kinds(names: Iterable[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Of each kind of parameter the aliases and the groups that have it, in order of appearance."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name in dict.fromkeys(names):
        alias, kind, group = name.split(".", 2)
        found.setdefault(kind, []).append((alias, group))
    return {
        kind: (list(dict.fromkeys(a for a, _ in of)), list(dict.fromkeys(g for _, g in of)))
        for kind, of in found.items()
    }


def scores_figure(scores: Mapping[str, Score], title: str) -> "go.Figure":
    """A bar for each model with its 95% interval."""
    import plotly.graph_objects as go

    figure = go.Figure()
    found = scores.values()
    figure.add_bar(
        x=list(scores),
        y=[score.value for score in found],
        error_y={
            "array": [score.high - score.value for score in found],
            "arrayminus": [score.value - score.low for score in found],
        },
    )
    figure.update_layout(title=f"{title}, with 95% intervals", template="plotly_white")
    return figure


def progress_figure(studies: Mapping[str, Progress], target: str, over: str) -> "go.Figure":
    """The best value so far of each study.

    Args:
        over: "trials" or "seconds" of running.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, progress in studies.items():
        x = progress.trials if over == "trials" else progress.seconds
        figure.add_scatter(x=list(x), y=list(progress.best), name=name, line={"shape": "hv"})
    figure.update_layout(
        title=f"Best {target} so far", xaxis_title=over, yaxis_title=target, template="plotly_white"
    )
    return figure


def time_figure(trials: Sequence[FrozenTrial]) -> "go.Figure":
    """Where the time of each trial goes; `confirm` is scoring a new best one on dev."""
    import plotly.graph_objects as go

    timed = [
        (t.number, t.duration.total_seconds(), result_of(t).seconds)
        for t in trials
        if RESULT in t.user_attrs and t.duration
    ]
    figure = go.Figure()
    parts = {
        part: [seconds.get(part, 0.0) for _, _, seconds in timed]
        for part in ("merge", "score", "confirm")
    }
    parts["sample and store"] = [
        max(0.0, whole - sum(seconds.values())) for _, whole, seconds in timed
    ]
    for part, heights in parts.items():
        figure.add_bar(x=[number for number, _, _ in timed], y=heights, name=part)
    figure.update_layout(
        title="Where the time goes",
        xaxis_title="trial",
        yaxis_title="seconds",
        barmode="stack",
        bargap=0,
        template="plotly_white",
    )
    return figure
