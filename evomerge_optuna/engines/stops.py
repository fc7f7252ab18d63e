"""Stop strings: where a generated text ends."""

from collections.abc import Iterable


class Text(str):
    """A generated text, without white space around it.

    Attributes:
        stopped_by: the stop string that it ended before, if there was one.
        whole: the text with the white space around it.
    """

    stopped_by: str | None = None
    whole: str = ""


def cut(text: str, stop: Iterable[str]) -> Text:
    """The text before the first of the stop strings, without white space around it.

    Where several begin at one place, the first of them is what stopped it.
    """
    places = [(text.find(string), order, string) for order, string in enumerate(stop)]
    found = min((place for place in places if place[0] >= 0), default=None)
    whole = text if found is None else text[: found[0]]
    result = Text(whole.strip())
    result.whole = whole
    result.stopped_by = None if found is None else found[2]
    return result
