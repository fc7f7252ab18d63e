"""Chat templates that write the date write the study's: prompts are the same tomorrow."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time

from evomerge_optuna.models.transformers_internals import chat_template_clock


@contextmanager
def on_day(day: date | None) -> Iterator[None]:
    """Within the block `strftime_now` of chat templates gives this day's midnight; None: now."""
    if day is None:
        yield
        return
    with chat_template_clock(datetime.combine(day, time())):
        yield
