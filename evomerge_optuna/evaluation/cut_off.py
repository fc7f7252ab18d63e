"""Told where many a model was cut off while it thought: its score says little of what it knows."""

from collections.abc import Sequence

MUCH = 0.05  # of the answers


def cut_off_remark(key: str, cut_off: Sequence[bool]) -> str:
    """A line where more than `MUCH` of the answers are cut off; else nothing.

    Args:
        key: the task's place in the spec.
        cut_off: of each answer, did thinking have no end?
    """
    share = sum(cut_off) / len(cut_off)
    if share <= MUCH:
        return ""
    return (
        f"{key}: {share:.0%} of {len(cut_off)} answers are none, since thinking was cut off; let "
        "it write more tokens, or write chat_args: {enable_thinking: false} where the template "
        "reads it"
    )
