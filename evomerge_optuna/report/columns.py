"""How tables look in the terminal."""

from rich.markup import escape
from rich.table import Table


def table_with(*columns: str) -> Table:
    """An empty table: the first column to the left, as names are, the others to the right."""
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 else "right")
    return table
