"""Empty answers: why a task has many of them, and the cure."""

from collections import Counter
from collections.abc import Sequence

_BEGIN = 0.1  # the share of answers that begin with a stop string from which on there is a remark
_MOST = 0.5  # the share of answers that are empty for another reason


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
