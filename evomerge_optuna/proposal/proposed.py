"""A whole spec, proposed from what the user wants and what was read."""

import os
from dataclasses import dataclass
from typing import Any

from evomerge_optuna.proposal.columns import Columns
from evomerge_optuna.proposal.data import Data
from evomerge_optuna.proposal.draft import Draft
from evomerge_optuna.proposal.facts import ModelFacts
from evomerge_optuna.proposal.goals import GOALS
from evomerge_optuna.proposal.merges import merge_of, merge_of_adapters
from evomerge_optuna.proposal.names import plain
from evomerge_optuna.proposal.sources import Sources
from evomerge_optuna.proposal.splits import split_named
from evomerge_optuna.proposal.tasks import task_of

TRIALS = 100  # where nothing is known of how long one takes


@dataclass(frozen=True)
class Wishes:
    """What a user has said, or agreed to.

    Attributes:
        study: the study's name.
        sources: the models, as the spec names them.
        goal: one of `tasks.GOALS`.
        language: an ISO 639 code; None: an answer may be in any.
        judge: of pictures; see `task_of`.
    """

    study: str
    sources: Sources
    data: Data
    columns: Columns
    goal: str
    language: str | None
    judge: str


def draft_of(
    wishes: Wishes, models: ModelFacts, file: str, trials: int = TRIALS, why: str | None = None
) -> Draft:
    """The spec.

    Args:
        file: of the spec, for its comments.
        trials: how many are to be run.
        why: so many, as a comment says it.

    Raises:
        UsageError: the data has no columns for the goal.
    """
    base = wishes.sources.base
    sources = dict(wishes.sources.models)
    if wishes.sources.are_lora and base is not None:
        merge = merge_of_adapters(models, trials)
        sources = {name: model.removeprefix(f"{base.model}+") for name, model in sources.items()}
    else:
        merge = merge_of(models, base is not None, trials)
    name = task_name(wishes.data.name)
    task = task_of(
        wishes.goal,
        name,
        wishes.data.rows,
        wishes.columns,
        models,
        wishes.language,
        wishes.judge,
    )
    kind, *rest = task.content.items()
    whole = dict([kind, ("data", wishes.data.splits), *rest])
    at = f"tasks.{name}"
    content: dict[str, Any] = {
        "study": wishes.study,
        "stage": "ps",
        **({} if base is None else {"base_model": base.model}),
        "models": sources,
        "merge": merge.content,
        "sampler": {"name": "auto", "seed": 0},
        "trials": trials,
        "tasks": {name: whole},
        "objectives": [task.target],
    }
    notes = {
        "sampler": "chosen when the study is created, which says why",
        **({} if base is None or not base.why else {"base_model": base.why}),
        **({"trials": why} if why else {}),
        **{f"merge.{key}": note for key, note in merge.notes.items()},
        **{f"{at}.{key}": note for key, note in task.notes.items()},
    }
    if isinstance(wishes.data.splits, dict):
        notes[f"{at}.data"] = "rows in the order of the data; shuffle what is sorted"
    offers = {
        **({"merge": merge.offers} if merge.offers else {}),
        **{f"{at}.{key}": lines for key, lines in task.offers.items()},
        "trials": (
            f"stop: {{no_better_in: {max(20, trials // 4)}}}  # stop early where nothing better "
            "is found",
        ),
    }
    return Draft(content, tuple(_head(wishes, file)), notes, offers)


def task_name(data: str) -> str:
    """What a task is called, by its data."""
    stem = os.path.basename(data.rstrip("/")).partition(".")[0]
    return "task" if not stem or split_named(stem) else plain(stem)


def _head(wishes: Wishes, file: str) -> list[str]:
    *others, last = wishes.sources.models
    names = f"{', '.join(others)} and {last}" if others else last
    return [
        f"A merge of {names} that is to {GOALS[wishes.goal]}, as in {wishes.data.name}.",
        "Written by evomerge-optuna study init. Change what you like before you run it:",
        f"  evomerge-optuna study run {file}",
    ]
