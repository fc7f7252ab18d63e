"""How models read the prompts of tasks: looked through before anything is scored, and hashed."""

import hashlib
import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.day import on_day
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.prompts import check_chat
from evomerge_optuna.evaluation.tasks import AnyRunner, Tasks
from evomerge_optuna.families import family_of
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import LMEvalTask, Prompted


@dataclass(frozen=True)
class NamedReader:
    """What a model of a study reads with.

    Attributes:
        key: the model's place in the spec.
        model: its name.
    """

    key: str
    model: str
    reader: Reader


def reader_of(model: OpenedModel, key: str | None = None) -> NamedReader:
    """What a model by itself reads with.

    Args:
        key: the model's place in the spec, unless it is the one that it was opened with.

    Raises:
        SpecError: its files cannot be read.
    """
    return NamedReader(key or model.key, model.name, family_of(model).reader(model))


def check_chat_args(tasks: Tasks, readers: Sequence[NamedReader]) -> None:
    """Refuses what no model's chat template reads, as where a name is misspelt.

    Raises:
        SpecError: naming it.
    """
    for runner in tasks.values():
        for argument in getattr(runner.task, "chat_args", {}):
            if not any(named.reader.has_template_argument(argument) for named in readers):
                raise SpecError(
                    f"{runner.key}.chat_args: no chat template of the models reads '{argument}'; "
                    "correct or remove it"
                )


def read_prompts(
    tasks: Tasks, readers: Sequence[NamedReader], day: date | None, splits: Iterable[str]
) -> dict[str, str]:
    """SHA-256 of the tokens that each model is given of each task and split.

    Args:
        day: that chat templates tell; None: today.

    Raises:
        SpecError: a chat template is missing or takes no such messages, or a prompt is longer than
            a model has positions for.
    """
    found: dict[str, str] = {}
    identified = [(_identity(reader), reader) for reader in readers]
    with on_day(day):
        for runner in tasks.values():
            _check_template(runner, readers)
            for split in (split for split in runner.splits if split in splits):
                place = f"{runner.key}.data.{split}"
                known: dict[Hashable, str] = {}
                for alike, reader in identified:
                    if alike not in known:
                        known[alike] = _read(runner, reader, split, place)
                    found[f"{place} as {reader.key} reads it"] = known[alike]
    return found


def _read(runner: AnyRunner, reader: NamedReader, split: str, place: str) -> str:
    problems = runner.problems(split)
    given = runner.given(reader.reader, problems)
    _check_lengths(runner, reader, problems, given, place)
    return _sha256(given)


def _identity(named: NamedReader) -> Hashable:
    """Equal for readers that read alike, of which one is asked: there may be many prompts."""
    reader = named.reader
    backend = getattr(reader.tokenizer, "backend_tokenizer", None)
    if backend is None or reader.takes_images:
        return id(named)
    words = str(reader.tokenizer.special_tokens_map), str(reader.tokenizer.chat_template)
    return hashlib.sha256(backend.to_str().encode()).digest(), *words, reader.positions


def _check_template(runner: AnyRunner, readers: Sequence[NamedReader]) -> None:
    """Tries the chat template of every model; a task with images tries its own."""
    if isinstance(runner.task, Prompted | LMEvalTask):
        for reader in readers:
            check_chat(runner.task, reader.reader, f"{reader.key}: {reader.model}: {runner.key}")


def _check_lengths(
    runner: AnyRunner,
    reader: NamedReader,
    problems: Sequence[Problem],
    given: Sequence[Sequence[Given]],
    place: str,
) -> None:
    """Refuses the first problem for which the model has no positions."""
    limit, cuts = reader.reader.positions, getattr(runner.task, "too_long", None) is not None
    if limit is None:
        return
    for row, (problem, parts) in enumerate(zip(problems, given, strict=True), start=1):
        for part in parts:
            # What is cut leaves one token of the prompt at least.
            if (1 + part.added if cuts else part.length) > limit:
                raise SpecError(
                    f"{place}: row {row} ({problem.text[:40]!r}) has {len(part.tokens):,} tokens"
                    + (f" and {part.added:,} of an answer" if part.added else "")
                    + f", but {reader.key} ({reader.model}) has positions for {limit:,}; "
                    + ("shorten the answer" if cuts else "shorten it, or write too_long: cut")
                )


def _sha256(given: Sequence[Sequence[Given]]) -> str:
    content = [[[list(part.tokens), part.added] for part in parts] for parts in given]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
