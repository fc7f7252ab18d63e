"""Problems whose answers tell most about a merge: where it is better than its sources, or worse."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evomerge_optuna.report.answers import Asked, printable, shown_answer

_HEAD, _TAIL = 160, 560  # characters of a long prompt: the question is at its end
_ANSWER = 400


@dataclass(frozen=True)
class Kind:
    """Problems of one kind, and some of them.

    Attributes:
        title: what is common to them.
        count: of all problems of this kind.
    """

    title: str
    count: int
    problems: tuple[Asked, ...]


_WANTED = {  # of each kind; how the result did, and whether any source was right
    (True, False): ("Only the result is right", 5),
    (True, True): ("The result and a source are right", 2),
    (False, True): ("The result is wrong, a source is right", 3),
    (False, False): ("All are wrong", 2),
}


def telling_problems(asked: Sequence[Asked], result: str, sources: Sequence[str]) -> list[Kind]:
    """Some problems of each kind, as far as there are any; of scores alone the first few.

    Args:
        result: the name of the merge that was found.
        sources: names of the models that it was made of.
    """
    judged: dict[tuple[bool, bool], list[Asked]] = {key: [] for key in _WANTED}
    others = []
    for problem in asked:
        own = problem.answers.get(result)
        if own is None:
            continue
        if own.right is None:
            others.append(problem)
            continue
        theirs = any(problem.answers[s].right for s in sources if s in problem.answers)
        judged[bool(own.right), theirs].append(problem)
    kinds = [
        Kind(title, len(judged[key]), tuple(_spread(judged[key], wanted)))
        for key, (title, wanted) in _WANTED.items()
    ]
    if others:
        kinds.append(Kind("Scored by degrees", len(others), tuple(_spread(others, 6))))
    return [kind for kind in kinds if kind.count]


def _spread(problems: Sequence[Asked], wanted: int) -> Iterator[Asked]:
    """So many of them, from the beginning to the end."""
    count = min(wanted, len(problems))
    for place in range(count):
        yield problems[place * len(problems) // count]


def shown_prompt(text: str) -> str:
    """A prompt whose middle is left out where it is long, at the ends of words."""
    return cut(printable(text.strip()), _HEAD, _TAIL)


def shown(answer: str | None) -> str:
    """An answer as it is, shortened where it is long."""
    return cut(printable(shown_answer(answer)), _ANSWER, 120)


def cut(text: str, head: int, tail: int) -> str:
    """The text without its middle, whose length stands in its place; whole unless that is long.

    Args:
        head: characters kept of the beginning, at most.
        tail: likewise of the end.
    """
    if len(text) <= head + tail + 40:
        return text
    begin, end = text[:head], text[-tail:]
    # At the end of a word, if the text has any: Japanese has none.
    begin = re.sub(r"(?<=\s)\S{1,30}$", "", begin)
    end = re.sub(r"^\S{1,30}(?=\s)", "", end)
    left_out = len(text) - len(begin) - len(end)
    return f"{begin.rstrip()}\n[… {left_out:,} characters …]\n{end.lstrip()}"
