"""Can a merge be read from its models' files? Asked at a study's creation; no weight is read."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from mergekit.architecture.conversion import convert_checkpoint_tensors
from mergekit.io.tasks import LoadTensor
from mergekit.tokenizer import PermutedVocabulary

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families import family_of
from evomerge_optuna.merging.plan import MergePlan, mergekit_errors, plan_merge
from evomerge_optuna.models.ends import end_tokens
from evomerge_optuna.models.headers import headers_in
from evomerge_optuna.models.opened import OpenedModel, OpenModel
from evomerge_optuna.recipes.merge import MergeRecipe


def check_merge(recipe: MergeRecipe, open_model: OpenModel = OpenedModel) -> list[str]:
    """Refuses a merge of which a tensor is in none of a model's files.

    Its plan has all tensors of the models' class, see `merge_architecture`. Each must be there by
    one of its names, or be what mergekit makes of those that are there, as joined experts are.

    Args:
        open_model: opens the recipe's models by their names.

    Returns:
        What is worth knowing of it: where plain mergekit makes another model of the recipe, and
        with which tokens a text ends where the models' texts end with different ones.

    Raises:
        SpecError: naming the model and the tensor.
    """
    models = {
        family_of(model).merged_folder(model.folder, recipe.components): model
        for model in map(open_model, recipe.models())
    }
    names = {str(folder): model.name for folder, model in models.items()}
    with mergekit_errors():
        plan = plan_merge(recipe)
    files = {
        folder: {
            name: torch.empty(header.shape, device="meta")
            for name, header in headers_in(Path(folder), model).items()
        }
        for folder, model in names.items()
    }
    kind = plan.config.model_type
    for load in _reads(plan):
        folder = load.model.model.path
        if not _can_read(load, files[folder], kind):
            raise SpecError(
                f"{names[folder]}: there is no tensor {load.tensor}, nor any that mergekit makes "
                "it of; load the model with transformers, save it again and name that"
            )
    return [*_tensor_remarks(plan), *_end_remarks(models)]


def _tensor_remarks(plan: MergePlan) -> Iterator[str]:
    if left_out := plan.left_out_by_mergekit():
        yield (
            f"{len(left_out)} tensors that mergekit leaves out of such models are merged, too, as "
            f"{left_out[0]}"
        )


def _end_remarks(models: Mapping[Path, OpenedModel]) -> Iterator[str]:
    ends = [end_tokens(folder, model.any_tokenizer) for folder, model in models.items()]
    if len(set(map(frozenset, ends))) > 1:
        all_ends = dict.fromkeys(token for own in ends for token in own)
        yield f"texts of merged models end with any of the models' ends: {', '.join(all_ends)}"


def _reads(plan: MergePlan) -> Iterator[LoadTensor]:
    for tensor in plan.tensors.values():
        gather = tensor.task.gather_tensors
        if isinstance(gather, PermutedVocabulary):
            gather = gather.gather_tensors
        yield from gather.arguments().values()


def _can_read(load: LoadTensor, tensors: Mapping[str, torch.Tensor], kind: str) -> bool:
    names = (load.tensor, *(load.aliases or ()), *(load.tied_names or ()))
    if any(name in tensors for name in names):
        return True
    return convert_checkpoint_tensors(kind, tensors, load.tensor) is not None
