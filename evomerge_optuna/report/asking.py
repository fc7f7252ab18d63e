"""An exported checkpoint is asked what the scored candidate was asked, before it is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from evomerge_optuna.errors import EvomergeError, ExportError
from evomerge_optuna.evaluation.tasks import Outcome, runners
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spec import LMEvalTask, PythonTask, StudySpec
from evomerge_optuna.study.result import as_scored
from evomerge_optuna.study.studies import MergeStudy, recipe_of

_PROBLEMS = 4  # of each task
_TOKENS = 16
_ROUNDING = 1e-4  # relative difference of the same model's logits
_MOST = 0.05  # relative difference of a stack's logits: the norms' epsilon is not folded


@dataclass(frozen=True)
class Replies:
    """What a model says of itself, in the dtype that the study scores in.

    Attributes:
        tensors: SHA-256 over its state dict.
        logits: of a few fixed tokens, on the CPU.
        vocabulary: of its tokenizer.
        ends: ids of the tokens that end its texts.
        template: its chat template.
        outcomes: of the first problems of each task that has any.
    """

    tensors: str
    logits: Any
    vocabulary: dict[str, int]
    ends: tuple[int, ...]
    template: str | None
    outcomes: tuple[Outcome, ...]


def ask_both(merge_study: MergeStudy, trial: FrozenTrial, folder: Path) -> str:
    """Loads an exported checkpoint as anyone would, and compares it with the candidate made anew.

    One after the other, so that the two are not in memory together.

    Returns:
        What was compared, in one line.

    Raises:
        ExportError: they differ, or the checkpoint cannot be loaded whole.
    """
    from evomerge_optuna.merging.merger import EveryMerger
    from evomerge_optuna.models.loading import load_checkpoint

    spec, recipe = merge_study.spec, recipe_of(trial)
    with as_scored(trial):
        merged = EveryMerger(spec.evaluation).merge(recipe)
        scored = ask(spec, merged.model, merged.tokenizer, merged.processor)
        del merged
        try:
            loaded = load_checkpoint(folder, spec.evaluation.device, spec.evaluation.dtype)
        except EvomergeError as error:
            raise ExportError(f"trial {trial.number}: its export is not whole: {error}") from error
        found = ask(spec, *loaded)
    if difference := _difference(scored, found, recipe):
        raise ExportError(
            f"trial {trial.number}: its export is not the model that was scored: {difference}; "
            "nothing was exported, please report it"
        )
    return _told(scored, found, recipe)


def ask(spec: StudySpec, model: Any, tokenizer: Any, processor: Any | None) -> Replies:
    """A model's replies to the first problems of the study's tasks."""
    import torch

    from evomerge_optuna.models.ends import end_ids
    from evomerge_optuna.models.fingerprint import digest_tensors

    text = getattr(model.config, "text_config", model.config)
    ids = torch.arange(_TOKENS, device=model.device)[None] % text.vocab_size
    with torch.inference_mode():
        logits = model(input_ids=ids).logits.float().cpu()
    return Replies(
        tensors=digest_tensors(model.state_dict()),
        logits=logits,
        vocabulary=tokenizer.get_vocab(),
        ends=tuple(sorted(end_ids(model.generation_config.to_dict()))),
        template=getattr(processor or tokenizer, "chat_template", None),
        outcomes=tuple(_outcomes(spec, model, tokenizer, processor)),
    )


def _outcomes(
    spec: StudySpec, model: Any, tokenizer: Any, processor: Any | None
) -> Sequence[Outcome]:
    found: list[Outcome] = []
    for runner in runners(spec.tasks).values():
        if isinstance(runner.task, LMEvalTask | PythonTask) or "search" not in runner.splits:
            continue  # their programs take no part of the data
        reader = processor if runner.sees else tokenizer
        problems = runner.problems("search")[:_PROBLEMS]
        found += runner.run(model, reader, problems, spec.evaluation.batch_size)
    return found


def _difference(scored: Replies, found: Replies, recipe: Recipe) -> str | None:
    if scored.vocabulary != found.vocabulary:
        return "its tokenizer has other tokens"
    if scored.template != found.template:
        return "its chat template is another"
    if scored.ends != found.ends:
        return f"its texts end with other tokens ({scored.ends} scored, {found.ends} exported)"
    if isinstance(recipe, StackRecipe):
        apart, alike = _relative_difference(scored, found), _marks(scored) == _marks(found)
        return None if alike or apart <= _MOST else f"its logits differ by {apart:.1%}"
    if scored.tensors != found.tensors:
        return f"its tensors differ (sha256 {scored.tensors[:12]} and {found.tensors[:12]})"
    alike = scored.outcomes == found.outcomes and _relative_difference(scored, found) <= _ROUNDING
    return None if alike else "it answers otherwise"


def _told(scored: Replies, found: Replies, recipe: Recipe) -> str:
    whole = "checked: plain transformers loads it, no tensor missing or left over"
    tokens = "tokens, chat template and ends of text are the scored ones"
    if isinstance(recipe, StackRecipe):
        apart = _relative_difference(scored, found)
        return (
            f"{whole}; {tokens}; its logits differ by {apart:.1e}, as norms' epsilon is not folded"
        )
    answers = f"answers to {len(found.outcomes)} problems, " if found.outcomes else ""
    return f"{whole}; tensors, logits, {answers}{tokens}"


def _marks(replies: Replies) -> list[bool | None]:
    return [outcome.mark() for outcome in replies.outcomes]


def _relative_difference(scored: Replies, found: Replies) -> float:
    return float((scored.logits - found.logits).norm() / scored.logits.norm())
