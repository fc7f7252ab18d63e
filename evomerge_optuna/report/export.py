"""Export: a trial's recipe as an ordinary checkpoint, checked against what was scored."""

from collections.abc import Callable, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from evomerge_optuna.errors import CandidateError, ExportError, UsageError
from evomerge_optuna.families import family_of_host, merged_folder
from evomerge_optuna.models.adapters import split_adapter
from evomerge_optuna.models.catalog import local_folder, mergekit_name
from evomerge_optuna.new_folder import new_folder
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.card import RECIPE_FILE, card_picture, model_card
from evomerge_optuna.report.sheets import contact_sheets
from evomerge_optuna.study.result import as_scored, result_of
from evomerge_optuna.study.studies import MergeStudy, recipe_of

STACK_FILE = "stack.yml"


def export(
    merge_study: MergeStudy,
    trial: FrozenTrial,
    folder: Path,
    say: Callable[[str], None] = lambda _: None,
    *,
    merged: bool = False,
    single_file: bool = False,
) -> str:
    """Writes the trial's model to a new folder: weights, tokenizer, recipe and model card.

    Of a study of adapters that is an adapter.

    It is loaded and asked before it is there, see `ask_both`.

    Args:
        say: is given a line about what was checked.
        merged: an adapter is merged into its base model, and that is written.
        single_file: also write a pipeline as one file, named as the folder is.

    Returns:
        SHA-256 over the exported tensors, which is that of the scored ones; of an adapter that is
        merged into its base model those of the adapter.

    Raises:
        UsageError: the folder exists, and nothing is ever overwritten; `merged` is for adapters; or
            the model cannot be written as one file.
        ExportError: it is not the model that was scored, or the disk is full.
    """
    # Imported here: mergekit and torch take seconds.
    from evomerge_optuna.merging.recipe_merger import write_recipe
    from evomerge_optuna.report.asking import ask_both
    from evomerge_optuna.report.export_adapter import write_found

    recipe, remarks = recipe_of(trial), list[str]()
    family = family_of_host(recipe.host)
    if merged and not isinstance(recipe, AdapterRecipe):
        raise UsageError(f"trial {trial.number} is a whole model; leave --merged out")
    if single_file:
        family.check_single_file(recipe.host)
    with new_folder(folder) as temporary:
        try:
            with as_scored(trial):
                if isinstance(recipe, AdapterRecipe):
                    written = write_found(recipe, temporary, merged=merged)
                    digest, remarks = written.digest, [written.in_words()]
                else:
                    digest = write_recipe(recipe, temporary, merge_study.spec.evaluation.device)
        except CandidateError as error:
            raise ExportError(f"trial {trial.number}: {error}") from error
        scored = result_of(trial).sha256
        if digest != scored:
            raise ExportError(
                f"trial {trial.number}: the tensors to export (sha256 {digest[:12]}) are not those "
                f"that were scored ({scored[:12]}); are the model files, package versions and "
                "the kind of CPU still the same?"
            )
        if merged or not isinstance(recipe, AdapterRecipe):
            family.write_for_others(temporary)
        say(ask_both(merge_study, trial, temporary, merged=merged))
        if single_file:
            say(family.write_single_file(temporary, temporary / f"{folder.name}.safetensors"))
        if isinstance(recipe, AdapterRecipe):
            say(f"the adapter has {remarks[0]}")
        elif isinstance(recipe, StackRecipe):
            (temporary / STACK_FILE).write_text(recipe.to_yaml(), encoding="utf-8")
        else:
            remarks = why_mergekit_differs(recipe)
            yaml = mergekit_yaml(recipe, remarks)
            (temporary / RECIPE_FILE).write_text(yaml, encoding="utf-8")
        sheets = contact_sheets(merge_study, trial)
        for sheet in sheets:
            (temporary / card_picture(sheet)).write_bytes(sheet.png)
        card = model_card(merge_study, trial, digest, remarks, sheets, merged=merged)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return digest


def why_mergekit_differs(recipe: MergeRecipe) -> list[str]:
    """Why plain mergekit does not make the same model of a recipe; nothing where it does."""
    from evomerge_optuna.merging.plan import plan_merge
    from evomerge_optuna.models.adapted import is_changed_at_the_ends

    found, plan = family_of_host(recipe.host).why_mergekit_differs(recipe), plan_merge(recipe)
    if left_out := plan.left_out_by_mergekit():
        found.append(
            f"mergekit leaves out {len(left_out)} tensors that models of this kind have, as "
            f"{left_out[0]}; here they are merged by the same method."
        )
    adapted = [model for model in recipe.models() if "+" in model]
    if any(is_changed_at_the_ends(_base_folder(m), local_folder(m)) for m in adapted):
        found.append(
            "mergekit cannot merge an adapter that adds tokens, and lets one of tied embeddings "
            "change both ends; here it is merged as it was trained."
        )
    if plan.is_untied:
        found.append(
            "mergekit's config.json ties embeddings and head, which differ here; write "
            "tie_word_embeddings: false into it."
        )
    return found


def mergekit_yaml(recipe: MergeRecipe, remarks: Sequence[str] = ()) -> str:
    """The recipe for plain mergekit, which knows neither the zoo nor `~` nor text parts.

    Args:
        remarks: see `why_mergekit_differs`.
    """
    family = family_of_host(recipe.host)
    what = "The same recipe:" if remarks else f"The {family.merged_part} again:"
    lines = [what, *recipe.how_to_repeat(RECIPE_FILE, family.mergekit_program), *remarks]
    locate = mergekit_name if recipe.host is None else _merged_part
    located = family.for_mergekit(recipe, locate)
    return "".join(f"# {line}\n" for line in lines) + located.to_yaml()


def _base_folder(model: str) -> Path:
    return local_folder(split_adapter(model)[0])


def _merged_part(model: str) -> str:
    part = merged_folder(model)
    return mergekit_name(model) if part == local_folder(model) else str(part)
