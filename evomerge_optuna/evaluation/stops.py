"""Stop strings: where a generated text ends, and what to say where nothing comes before them."""

from collections import Counter
from collections.abc import Iterable, Sequence

_BEGIN = 0.1  # a share of answers that begin with a stop string, from which on it is told
_MOST = 0.5  # a share of answers that are empty for another reason


class Text(str):
    """A generated text; `stopped_by` is the stop string that it ended before, if there was one."""

    stopped_by: str | None = None


def cut(text: str, stop: Iterable[str]) -> Text:
    """The text before the first of the stop strings, without white space around it.

    Where several begin at one place, the first of them is what stopped it.
    """
    places = [(text.find(string), order, string) for order, string in enumerate(stop)]
    found = min((place for place in places if place[0] >= 0), default=None)
    result = Text((text if found is None else text[: found[0]]).strip())
    result.stopped_by = None if found is None else found[2]
    return result


def empty_remark(key: str, answers: Sequence[tuple[str, str | None]]) -> str:
    """A line where many answers of a task are empty, why, and the cure; else nothing.

    Args:
        key: the task's place in the spec.
        answers: each a text and the stop string that it ended before.
    """
    empty = [stop for text, stop in answers if not text]
    stops = Counter(stop for stop in empty if stop is not None)
    share = len(empty) / max(1, len(answers))
    line = f"{key}: {share:.0%} of {len(answers)} answers are empty: "
    if stops and share >= _BEGIN and 2 * stops.total() >= len(empty):
        ((stop, _),) = stops.most_common(1)
        return (
            f"{line}they begin with the stop string {stop!r}; leave it out of {key}.stop, or let "
            "the prompt end with it"
        )
    if share > _MOST:
        return (
            f"{line}the model ends them at once; does the prompt end where an answer begins? a "
            "chat model wants chat: true"
        )
    return ""
