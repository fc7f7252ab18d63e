"""Answers of models to the same problems: side by side in the terminal, as JSON lines, in notes."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial
from rich.console import Group
from rich.table import Table
from rich.text import Text

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.answered import Answered
from evomerge_optuna.evaluation.evaluator import Evaluation
from evomerge_optuna.evaluation.tasks import Tasks, runners
from evomerge_optuna.report.markdown import plain, table
from evomerge_optuna.results.final_scores import models_to_score
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.study.answers import Rows, latest_answers, stored_answers
from evomerge_optuna.study.studies import MergeStudy

NOTED = 12  # problems in a note, which a page reads as a whole
_LONGEST = 200  # characters of a cell there
_NO_ANSWER = "-"  # of a model that was asked for none


@dataclass(frozen=True)
class Asked:
    """A problem and the answers to it.

    Attributes:
        number: its place in the task's split, from 1; of a study that races in that of the first
            model's rows.
        answers: by the models' names.
    """

    split: str
    task: str
    number: int
    prompt: str
    reference: str | None
    answers: dict[str, Answered] = field(default_factory=dict)

    def is_wrong(self, model: str) -> bool:
        return model in self.answers and self.answers[model].right is False


def answers_of_study(
    merge_study: MergeStudy,
    trials: Sequence[FrozenTrial],
    split: str | None,
    say: Callable[[str], None],
) -> list[Asked]:
    """What the source models, the baseline and these trials have answered, as far as it is stored.

    Args:
        split: None: the last of search, dev, test that the first trial has answers on.
        say: called with a line about what has no answers.

    Raises:
        UsageError: there are none of the first trial.
        StorageError: the artifact store cannot be read.
    """
    tasks = runners(merge_study.spec.tasks)
    lines = without_answers(tasks)
    wanted = {c.name: c for trial in trials for c in models_to_score(merge_study, trial)}
    *_, first = models_to_score(merge_study, trials[0])
    if split is None:
        _, split = latest_answers(merge_study, first.identity)
    found = {
        name: rows
        for name, entry in wanted.items()
        if (rows := stored_answers(merge_study, entry.identity, split)) is not None
    }
    study = merge_study.name
    if first.name not in found:
        command = f"evomerge-optuna study test {merge_study.quoted_name} --trial {trials[0].number}"
        raise UsageError(
            f"no answers of {first.name} on {split} are stored with study '{study}'; "
            f"{command} scores it and keeps them, unless it has scored it before"
        )
    if missing := [name for name in wanted if name not in found]:
        lines.append(
            f"no answers on {split} are stored of {', '.join(missing)}; evomerge-optuna study test "
            f"{merge_study.quoted_name} keeps those that it scores"
        )
    for line in lines:
        say(line)
    return side_by_side(tasks, split, found)


def side_by_side(tasks: Tasks, split: str, rows: Mapping[str, Rows]) -> list[Asked]:
    """All problems that have answers, in the order of the first model's rows.

    Args:
        rows: stored outcomes, by the models' names.
    """
    found: dict[tuple[Any, ...], Asked] = {}
    numbers: Counter[str] = Counter()
    for model, own in rows.items():
        times: Counter[tuple[Any, ...]] = Counter()  # a problem may be there twice
        for row in own:
            task = row["task"]
            answered = tasks[task].answered(row) if task in tasks else None
            if answered is None:
                continue
            problem = (task, answered.prompt, answered.reference)
            key = (*problem, times[problem])
            times[problem] += 1
            if key not in found:
                numbers[task] += 1
                found[key] = Asked(split, task, numbers[task], answered.prompt, answered.reference)
            found[key].answers[model] = answered
    return list(found.values())


def without_answers(tasks: Tasks) -> list[str]:
    """A line for each task that has none to read.

    Raises:
        UsageError: no task has any.
    """
    found = [runner for runner in tasks.values() if not runner.has_answers]
    lines = [f"{runner.key}: a {runner.task.type} task has no answers to read" for runner in found]
    if len(found) == len(tasks):
        raise UsageError("; ".join(lines))
    return lines


def answer_lines(asked: Iterable[Asked]) -> Iterator[str]:
    """One JSON document for each answer."""
    for problem in asked:
        for model, answered in problem.answers.items():
            row = {
                "split": problem.split,
                "task": problem.task,
                "number": problem.number,
                "model": model,
                **asdict(answered),
            }
            yield json.dumps(row, ensure_ascii=False)


def check_answers_file(file: Path, spec: StudySpec) -> list[str]:
    """Before anything is scored: a line for each task without answers.

    Raises:
        UsageError: there is nothing to write, or no file can be there.
    """
    lines = without_answers(runners(spec.tasks))
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UsageError(f"--answers: {file} cannot be a file; name one in a folder that is there")
    return lines


def write_answers(file: Path, model: str, spec: StudySpec, evaluation: Evaluation) -> None:
    """Writes a model's answers as JSON lines.

    Raises:
        EvomergeError: the file cannot be written.
    """
    asked = side_by_side(runners(spec.tasks), evaluation.split, {model: evaluation.rows()})
    try:
        file.write_text("".join(f"{line}\n" for line in answer_lines(asked)), encoding="utf-8")
    except OSError as error:
        raise EvomergeError(f"{file}: cannot be written: {error.strerror}") from error


def answer_view(asked: Sequence[Asked]) -> Group:
    """Each problem with a table of the answers to it; below, how many are right."""
    parts: list[Any] = []
    for problem in asked:
        if parts:
            parts.append(Text())
        head = Text(f"{problem.task} {problem.number} ({problem.split})", style="bold")
        parts += [head, Text(printable(problem.prompt))]
        if problem.reference is not None:
            parts.append(Text(f"reference: {printable(problem.reference)}"))
        titles, rows = _without_empty(
            ["model", "answer", "read", "verdict"],
            [
                [model, shown_answer(answered.answer), answered.read or "", answered.verdict]
                for model, answered in problem.answers.items()
            ],
        )
        shown = Table(*titles)
        for cells in rows:
            shown.add_row(*(Text(printable(cell)) for cell in cells))
        parts.append(shown)
    return Group(*parts, Text(count_line(asked)))


def count_line(asked: Sequence[Asked]) -> str:
    """How many problems, and how many of them each model answered right."""
    judged = Counter(
        model for problem in asked for model, answered in problem.answers.items() if answered.right
    )
    models = dict.fromkeys(model for problem in asked for model in problem.answers)
    has_verdicts = any(a.right is not None for p in asked for a in p.answers.values())
    right = ", ".join(f"{model} {judged[model]}" for model in models)
    return f"{len(asked)} problems" + (f"; right: {right}" if has_verdicts else "")


def shown_answer(answer: str | None) -> str:
    return _NO_ANSWER if answer is None else answer or "(empty)"


def _without_empty(
    titles: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[list[str], list[list[str]]]:
    """A table without the columns that say nothing, as that of the answers of models that draw."""
    kept = [n for n in range(len(titles)) if {row[n] for row in rows} - {"", _NO_ANSWER}]
    return [titles[n] for n in kept], [[row[n] for n in kept] for row in rows]


def printable(text: str) -> str:
    """The text with its line ends; what else does not print, as in a terminal's own orders, is
    written out."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def answers_note(tasks: Tasks, split: str, rows: Rows, whose: str) -> str:
    """Some answers of one model as a Markdown table, wrong ones and right ones; '' if there are
    none."""
    asked = side_by_side(tasks, split, {whose: rows})
    wrong = [problem for problem in asked if problem.is_wrong(whose)]
    others = [problem for problem in asked if not problem.is_wrong(whose)]
    half = NOTED // 2
    chosen = [*wrong[: max(half, NOTED - len(others))], *others[: max(half, NOTED - len(wrong))]]
    if not chosen:
        return ""
    cells = [
        [
            plain(text, _LONGEST)
            for text in (
                f"{problem.task} {problem.number}",
                problem.prompt,
                problem.reference or "",
                shown_answer(answered.answer),
                answered.read or "",
                answered.verdict,
            )
        ]
        for problem in chosen
        for answered in problem.answers.values()
    ]
    titles = ["on " + split, "prompt", "reference", f"answer of {whose}", "read in it", "verdict"]
    return table(*_without_empty(titles, cells))
