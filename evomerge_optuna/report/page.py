"""Pieces of one HTML page that needs nothing else: a template, tables, figures."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WIDTH = 680  # pixels: what fits on a sheet of A4, too
_HEIGHT = 380
INK, _GRID = "#7d8794", "rgba(128, 138, 150, 0.25)"  # to be read on white and on black


@dataclass(frozen=True)
class Rows:
    """A table of a page.

    Attributes:
        rows: of texts, one for each title.
        loud: places of the rows that stand out.
        ruled: places of the rows below which there is a line.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    loud: tuple[int, ...] = ()
    ruled: tuple[int, ...] = ()


def rows_of(table: Table, loud: tuple[int, ...] = ()) -> Rows:
    """A terminal's table as one of a page: the same texts."""
    columns = [[_plain(cell) for cell in column.cells] for column in table.columns]
    ruled = tuple(place for place, row in enumerate(table.rows) if row.end_section)
    titles = tuple(_plain(column.header) for column in table.columns)
    return Rows(titles, tuple(zip(*columns, strict=True)), loud, ruled)


def _plain(cell: object) -> str:
    return Text.from_markup(str(cell)).plain


def figure_html(figure: "go.Figure") -> Markup:
    """A figure for a page that has plotly's script, in colours that suit light and dark."""
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "family": "system-ui, sans-serif", "size": 12},
        width=_WIDTH,
        height=figure.layout.height or _HEIGHT,
        title=None,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(gridcolor=_GRID, zerolinecolor=_GRID, linecolor=_GRID)
    figure.update_yaxes(gridcolor=_GRID, zerolinecolor=_GRID, linecolor=_GRID)
    shown = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False}
    )
    return Markup(shown)  # plotly escapes what it is given


def page(template: str, **parts: Any) -> str:
    """A page of this template, in which every text stays text.

    Args:
        template: the name of a file in `report/templates`.
        parts: what the template asks for.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = Markup(get_plotlyjs())
    return environment.get_template(template).render(plotly=script, **parts)
