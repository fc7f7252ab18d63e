"""The prompts of a study as its candidates and sources read them: the same as long as it lives."""

import copy
from contextlib import suppress
from dataclasses import replace
from datetime import date

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.reading import (
    NamedReader,
    check_chat_args,
    read_prompts,
    reader_of,
)
from evomerge_optuna.evaluation.tasks import Tasks
from evomerge_optuna.merging.tokenizer import (
    give_chat_template,
    model_of_tokenizer,
    reader_of_recipe,
)
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import SPLITS, StudySpec


def prompts_of(
    spec: StudySpec, space: SearchSpace, tasks: Tasks, models: OpenedModels, day: date | None
) -> dict[str, str]:
    """SHA-256 of what candidates and sources are given, by task, split and model.

    Args:
        models: of the spec.
        day: that chat templates tell; None: today.

    Raises:
        SpecError: see `read_prompts` and `check_chat_args`.
        CandidateError: mergekit refuses the baseline of the search space.
    """
    readers = _readers(spec, space, models)
    check_chat_args(tasks, readers)
    return read_prompts(tasks, readers, day, SPLITS)


def _readers(spec: StudySpec, space: SearchSpace, models: OpenedModels) -> list[NamedReader]:
    """The candidates, which all have one tokenizer, and the sources that `study test` scores."""
    recipe = space.recipe(space.baseline())
    own = reader_of_recipe(recipe, models.named)
    model = model_of_tokenizer(recipe)
    keys = {name: key for key, name in spec.model_ids().items()}
    key, name = ("merge", "its tokenizer") if model is None else (keys[model], model)
    found = [NamedReader(key, name, own)]
    for key, name in spec.source_ids().items():
        if space.alone(key.removeprefix("models.")) is not None:
            continue  # it reads as the candidates do
        with suppress(SpecError):  # without a tokenizer of its own it has that of the first model
            source = reader_of(models.named(name), key)
            copied = copy.copy(source.reader.tokenizer)  # others read with it, too
            give_chat_template(copied, lambda: own.tokenizer)
            found.append(replace(source, reader=replace(source.reader, tokenizer=copied)))
    return found
