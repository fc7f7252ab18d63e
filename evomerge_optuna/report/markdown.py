"""Pieces of Markdown that notes and model cards share."""

from collections.abc import Iterable, Sequence

from evomerge_optuna.explain import one_line
from evomerge_optuna.spec import StudySpec

# What means something within a line: to Markdown, to its tables, to HTML, to TeX, and what it finds
# addresses by, which swallow the signs after them.
_ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in "\\`*_[]<>|$~&:@."}


def plain(text: str, longest: int) -> str:
    """A text of anybody's as a cell shows it, sign for sign; of a long one the beginning.

    Args:
        longest: in characters.
    """
    return one_line(text, longest).translate(_ENTITIES)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, one line a row."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows))


def objectives(spec: StudySpec) -> str:
    """What a study is after, as 'maximize `math.accuracy`, minimize `layers`'."""
    return ", ".join(f"{o.direction} `{o.target}`" for o in spec.objectives)
