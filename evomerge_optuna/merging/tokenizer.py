"""What a recipe's model will read with, known before any weight of it is made."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families import family_of
from evomerge_optuna.models.opened import OpenedModel, OpenModel
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# The keys of a configuration by which mergekit makes a tokenizer; else the base's is copied.
_MADE = ("tokenizer_source", "tokenizer", "chat_template")


def reader_of_recipe(recipe: Recipe, open_model: OpenModel = OpenedModel) -> Reader:
    """What a recipe's model reads with.

    Args:
        open_model: opens the recipe's models by their names.

    Raises:
        SpecError: a model's files cannot be read.
        CandidateError: mergekit refuses the recipe.
    """
    if recipe.host is not None and family_of(host := open_model(recipe.host)).keeps_reader:
        return family_of(host).reader(host)
    model = model_of_tokenizer(recipe)
    if model is None:
        tokenizer, config = _made(recipe)
    else:
        opened = open_model(model)
        tokenizer, config = opened.tokenizer, opened.config
    if recipe.host is None:
        return Reader(tokenizer, positions(config))
    host = open_model(recipe.host)
    return family_of(host).reader_of_whole(host, config, tokenizer)


def give_chat_template(
    tokenizer: "PreTrainedTokenizerBase", merged: "Callable[[], PreTrainedTokenizerBase]"
) -> None:
    """A source model's tokenizer that has no chat template gets that of the merge's tokenizer."""
    if not getattr(tokenizer, "chat_template", None):
        tokenizer.chat_template = merged().chat_template


def with_chat_template(
    source: MergeRecipe, merge: Recipe, open_model: OpenModel = OpenedModel
) -> MergeRecipe:
    """The recipe of other models, which gets the merge's chat template if it has none.

    Args:
        merge: a merge, or a stack of one.
        open_model: opens the recipes' models by their names.
    """
    with suppress(SpecError):  # it has no tokenizer
        if not reader_of_recipe(source, open_model).tokenizer.chat_template:
            template = reader_of_recipe(merge, open_model).tokenizer.chat_template
            added = {"chat_template": template} if isinstance(template, str) else {}
            return source.model_copy(update={"configuration": source.configuration | added})
    return source


def model_of_tokenizer(recipe: Recipe) -> str | None:
    """The model whose tokenizer a recipe's model has; None where mergekit makes one."""
    own = _of_text(recipe)
    if isinstance(own, str):
        return own
    if any(own.configuration.get(name) is not None for name in _MADE):
        return None
    return own.configuration.get("base_model") or own.models()[0]


def _of_text(recipe: Recipe) -> MergeRecipe | str:
    """The merge that gives the tokenizer; else the name of the model or adapter that does."""
    if isinstance(recipe, AdapterRecipe):
        return recipe.reads_as
    if isinstance(recipe, StackRecipe):
        return recipe.merges.get(recipe.embeddings, recipe.embeddings)
    return recipe


def _made(recipe: Recipe) -> "tuple[PreTrainedTokenizerBase, PretrainedConfig]":
    from evomerge_optuna.merging.plan import mergekit_errors, plan_merge  # takes seconds

    merge = _of_text(recipe)
    assert isinstance(merge, MergeRecipe)
    with TemporaryDirectory() as folder, mergekit_errors():
        plan = plan_merge(merge)
        plan.write_files_beside_weights(Path(folder))
        return OpenedModel(folder, "merge").tokenizer, plan.config
