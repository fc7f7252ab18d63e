"""Figures: the path of a layer stack, as the paper draws it."""

from typing import TYPE_CHECKING

from evomerge_optuna.recipes.stack import StackRecipe

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
