"""Chat templates that tell the day tell the study's, so that prompts are the same tomorrow."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from types import SimpleNamespace


@contextmanager
def on_day(day: date | None) -> Iterator[None]:
    """Within the block `strftime_now` of chat templates gives this day's midnight; None: now."""
    from transformers.utils import chat_template_utils

    if day is None:
        yield
        return
    # transformers takes no clock from outside: what is no plain value it hides from a template.
    clock = SimpleNamespace(now=lambda: datetime.combine(day, time()))
    own = chat_template_utils.datetime
    chat_template_utils.datetime = clock
    try:
        yield
    finally:
        chat_template_utils.datetime = own
