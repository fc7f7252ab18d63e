"""Pieces of Markdown that notes and model cards share."""

from collections.abc import Iterable, Sequence

from evomerge_optuna.spec import StudySpec


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, one line a row."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))


def objectives(spec: StudySpec) -> str:
    """What a study is after, as 'maximize `math.accuracy`, minimize `layers`'."""
    return ", ".join(f"{o.direction} `{o.target}`" for o in spec.objectives)
