"""An exported checkpoint is asked what the scored candidate was asked, before it is there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import TextEngine
from evomerge_optuna.errors import EvomergeError, ExportError
from evomerge_optuna.evaluation.day import on_day
from evomerge_optuna.evaluation.tasks import Outcome, Tasks, runners
from evomerge_optuna.families import family_of_host
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report import asking_images
from evomerge_optuna.spec import LMEvalTask, PythonTask
from evomerge_optuna.study.result import as_scored
from evomerge_optuna.study.studies import MergeStudy, recipe_of

if TYPE_CHECKING:
    import torch

_PROBLEMS = 4  # of each task
_TOKENS = 16
_MOST = 0.05  # relative difference of a stack's logits: the norms' epsilon is not folded
_ROUNDING = {4: 1e-3, 2: 1e-2}  # that of a merge's, by the bytes of a number: where it lies counts


@dataclass(frozen=True)
class Replies:
    """What a model says of itself, in the dtype that the study scores in.

    Attributes:
        tensors: SHA-256 over its state dict.
        logits: of a few fixed tokens, on the CPU, in the model's dtype.
        vocabulary: of its tokenizer.
        ends: ids of the tokens that end its texts.
        template: its chat template.
        outcomes: of the first problems of each task that has any.
    """

    tensors: str
    logits: "torch.Tensor"
    vocabulary: dict[str, int]
    ends: tuple[int, ...]
    template: str | None
    outcomes: tuple[Outcome, ...]


def ask_both(
    merge_study: MergeStudy, trial: FrozenTrial, folder: Path, *, merged: bool = False
) -> str:
    """Loads an exported checkpoint as anyone would, and compares it with the candidate made anew.

    One after the other, so that the two are not in memory together.

    Args:
        merged: it is a base model into which the scored adapter was merged.

    Returns:
        What was compared, in one line.

    Raises:
        ExportError: they differ, or the checkpoint cannot be loaded whole.
    """
    spec, recipe, tasks = merge_study.spec, recipe_of(trial), runners(merge_study.spec.tasks)
    family = family_of_host(recipe.host)
    ask: Callable[[Any], Any] = partial(_ask, tasks, merge_study.day)
    why = "the adapter is rounded into the weights" if merged else _why_not_exact(recipe)
    compare: Callable[[Any, Any], str | None] = partial(_difference, why is None)
    tell: Callable[[Any, Any], str] = partial(_what_was_compared, recipe, why)
    if family.answers == "images":
        ask = partial(asking_images.ask, tasks)
        compare, tell = asking_images.difference, asking_images.what_was_compared
    # Only a family's own engine gives tensors and logits; the digest says that it is the model.
    how = spec.evaluation.model_copy(update={"engine": family.engine, "engine_args": {}})
    with as_scored(trial):
        scored = ask(candidate_builder(how).build(recipe).engine)
        try:
            loaded = load_engine(folder, how)
        except EvomergeError as error:
            raise ExportError(f"trial {trial.number}: its export is not whole: {error}") from error
        found = ask(loaded)
    if difference := compare(scored, found):
        raise ExportError(
            f"trial {trial.number}: its export is not the model that was scored: {difference}; "
            f"nothing was exported, {'leave --merged out' if merged else 'please report it'}"
        )
    return tell(scored, found)


def _ask(tasks: Tasks, day: date | None, engine: TextEngine) -> Replies:
    """A model's replies to the first problems of the study's tasks.

    Args:
        day: that chat templates tell.
    """
    import torch

    from evomerge_optuna.models.digest import digest_tensors
    from evomerge_optuna.models.ends import ends_of_model

    model, reader = engine.raw("the check of an export").model, engine.reader
    text = getattr(model.config, "text_config", model.config)
    ids = torch.arange(_TOKENS, device=model.device)[None] % text.vocab_size
    with torch.inference_mode():
        logits = model(input_ids=ids).logits.cpu()
    with on_day(day):
        outcomes = tuple(_outcomes(tasks, engine))
    return Replies(
        tensors=digest_tensors(model.state_dict()),
        logits=logits,
        vocabulary=reader.tokenizer.get_vocab(),
        ends=tuple(sorted(ends_of_model(model))),
        template=reader.chat_template,
        outcomes=outcomes,
    )


def _outcomes(tasks: Tasks, engine: TextEngine) -> Sequence[Outcome]:
    found: list[Outcome] = []
    for runner in tasks.values():
        if isinstance(runner.task, LMEvalTask | PythonTask) or "search" not in runner.splits:
            continue  # their programs take no part of the data
        problems = runner.problems("search")[:_PROBLEMS]
        found += runner.run(engine, problems)
    return found


def _why_not_exact(recipe: Recipe) -> str | None:
    """Why an export is not the very candidate; None: it is."""
    return "the norms' epsilon cannot be folded" if isinstance(recipe, StackRecipe) else None


def _difference(is_exact: bool, scored: Replies, found: Replies) -> str | None:
    if scored.vocabulary != found.vocabulary:
        return "its tokenizer has other tokens"
    if scored.template != found.template:
        return "its chat template is another"
    if scored.ends != found.ends:
        return f"its texts end with other tokens ({scored.ends} scored, {found.ends} exported)"
    apart = _relative_difference(scored, found)
    if not is_exact:
        marks = [outcome.mark() for outcome in scored.outcomes]
        can_tell = bool(marks) and None not in marks  # likelihoods alone cannot
        alike = can_tell and _same(scored.outcomes, found.outcomes)
        return None if apart <= _MOST or alike else f"its logits differ by {apart:.1%}"
    if scored.tensors != found.tensors:
        return f"its tensors differ (sha256 {scored.tensors[:12]} and {found.tensors[:12]})"
    if not apart <= _ROUNDING[min(scored.logits.dtype.itemsize, 4)]:
        return f"it answers otherwise, its logits differ by {apart:.1%}"
    return None if _same(scored.outcomes, found.outcomes) else "it answers otherwise"


def _what_was_compared(recipe: Recipe, why: str | None, scored: Replies, found: Replies) -> str:
    whole = "checked: plain transformers loads it, no tensor missing or left over"
    if isinstance(recipe, AdapterRecipe) and why is None:
        whole = "checked: plain peft loads it on its base model"
    tokens = "tokens, chat template and end-of-text tokens equal those of the scored candidate"
    if why is not None:
        apart = _relative_difference(scored, found)
        return f"{whole}; {tokens}; its logits differ by {apart:.1e}, because {why}"
    asked = f"logits, answers to {len(found.outcomes)} problems" if found.outcomes else "logits"
    return f"{whole}; tensors, {asked}, {tokens}"


def _same(scored: Sequence[Outcome], found: Sequence[Outcome]) -> bool:
    """Are the outcomes equal, but for the rounding of numbers?"""
    return _equal([astuple(one) for one in scored], [astuple(one) for one in found])


def _equal(one: object, other: object) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-2, abs_tol=1e-2)
    return bool(one == other)


def _relative_difference(scored: Replies, found: Replies) -> float:
    one, other = scored.logits.float(), found.logits.float()
    return float((one - other).norm() / one.norm())
