"""Contact sheets of a study: what its sources, its uniform merge and a trial draw of one prompt.

They are made of the small pictures that are kept with answers, so no model is loaded.
"""

import base64
import hashlib
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from evomerge_optuna.errors import StorageError
from evomerge_optuna.evaluation.contact_sheet import from_thumbnail, side_by_side
from evomerge_optuna.results.chosen_trial import chosen_trial
from evomerge_optuna.results.final_scores import ModelToScore, models_to_score
from evomerge_optuna.store.artifacts import attached
from evomerge_optuna.store.optuna_internals import study_attributes, study_id
from evomerge_optuna.study.answers import Rows, answers_of_trial, stored_answers
from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.studies import MergeStudy

if TYPE_CHECKING:
    from PIL.Image import Image

Asked = tuple[str, int]  # a prompt and the seed of its noise


@dataclass(frozen=True)
class Sheet:
    """Pictures of one task side by side: a row for each model, a column for each prompt.

    Attributes:
        png: the file.
    """

    study: str
    task: str
    split: str
    models: tuple[str, ...]
    prompts: tuple[str, ...]
    png: bytes

    @property
    def file(self) -> str:
        """A name that another sheet has not."""
        return f"pictures-{self.task}-{hashlib.sha256(self.png).hexdigest()[:12]}.png"

    def caption(self) -> str:
        """What is to be seen, in Markdown."""
        prompts = "; ".join(f"{number}: {text}" for number, text in enumerate(self.prompts, 1))
        return f"{self.study}: pictures of {self.task} ({self.split}). {prompts}"

    def html(self) -> str:
        """The picture itself and its caption."""
        content = base64.b64encode(self.png).decode()
        return (
            f'<figure><img alt="{escape(self.task)}" style="max-width: 100%" '
            f'src="data:image/png;base64,{content}"><figcaption>{escape(self.caption())}'
            "</figcaption></figure>"
        )


def contact_sheets(merge_study: MergeStudy, trial: FrozenTrial) -> list[Sheet]:
    """A sheet for each image task, as far as pictures are kept; none where those are not read.

    On the split on which the most models have pictures, of equals the last.
    """
    found = []
    for name, runner in merge_study.tasks.items():
        if runner.asks != "images":
            continue
        by_split = [(split, _models(merge_study, trial, name, split)) for split in runner.splits]
        split, models = max(reversed(by_split), key=lambda one: len(one[1]))
        if pictures := _of_common_prompts(models):
            prompts = tuple(prompt for prompt, _ in next(iter(pictures.values())))
            png = side_by_side({name: list(own.values()) for name, own in pictures.items()})
            found.append(Sheet(merge_study.name, name, split, tuple(pictures), prompts, png))
    return found


def best_sheets(merge_study: MergeStudy) -> list[Sheet]:
    """The sheets of the study's result as far as it is known."""
    best = chosen_trial(merge_study)
    return [] if best is None else contact_sheets(merge_study, best)


def attach_sheets(merge_study: MergeStudy) -> list[str]:
    """Attaches the best sheets to the study, unless they are; gives each in Markdown."""
    lines = []
    for sheet in best_sheets(merge_study):
        study = merge_study.study
        known = dict(attached(study_attributes(study)))
        with suppress(StorageError):  # a page without them is better than none
            artifact = known.get(sheet.file) or merge_study.store.artifacts.attach(
                study, sheet.file, sheet.png, "image/png"
            )
            path = f"/artifacts/{study_id(study)}/{artifact}"  # as get_artifact_path has it
            lines.append(f"![{sheet.task}]({path})\n\n{sheet.caption()}")
    return lines


def _models(
    merge_study: MergeStudy, trial: FrozenTrial, task: str, split: str
) -> "dict[str, dict[Asked, Image]]":
    """The pictures of each model that has any, by the models' names."""
    found = {}
    for entry in models_to_score(merge_study, trial):
        with suppress(StorageError):
            rows = _rows(merge_study, entry, split) or []
            kept = {
                (row["prompt"], row["seed"]): from_thumbnail(row["thumbnail"])
                for row in rows
                if row["task"] == task and row.get("thumbnail")
            }
            if kept:
                found[entry.name] = kept
    return found


def _rows(merge_study: MergeStudy, entry: ModelToScore, split: str) -> Rows | None:
    """A model's answers; of a source also those of its own trial."""
    rows = stored_answers(merge_study, entry.identity, split)
    if rows is not None or entry.model is None:
        return rows
    for own in merge_study.trials():
        if own.user_attrs.get(BASELINE) == f"source {entry.name}":
            return answers_of_trial(merge_study, own, split)
    return None


def _of_common_prompts(
    models: "dict[str, dict[Asked, Image]]",
) -> "dict[str, dict[Asked, Image]]":
    """The pictures of what all of them have drawn, in one order; empty where that is nothing."""
    first = next(iter(models.values()), {})
    common = [asked for asked in first if all(asked in kept for kept in models.values())]
    if not common:
        return {}
    return {name: {asked: kept[asked] for asked in common} for name, kept in models.items()}
