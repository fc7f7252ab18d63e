"""The trials that a study begins with: its baseline, its sources, those that people try by hand,
and the best of other studies."""

import itertools

from evomerge_optuna.errors import UsageError
from evomerge_optuna.families.base import Architecture
from evomerge_optuna.merging.tokenizer import with_chat_template
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.schema import RECIPE
from evomerge_optuna.study.studies import open_study, recipe_of


def baselines(spec: StudySpec, space: SearchSpace) -> dict[str, Values]:
    """The parameters of the baseline and, for a population that learns from them, of the sources.

    By their names, which their trials have as an attribute.
    """
    first = {space.baseline_name: space.baseline()}
    if spec.sampler.row.begins_at_start or not spec.sampler.row.generations:
        return first
    return first | {f"source {alias}": values for alias, values in space.sources().items()}


def starts(spec: StudySpec, space: SearchSpace) -> dict[str, Values]:
    """The parameters that people try by hand, by name: a quarter of the study's trials at most."""
    if not spec.starts:
        return {}
    given = baselines(spec, space).values()
    others = ((name, values) for name, values in space.starts().items() if values not in given)
    return dict(itertools.islice(others, spec.trials // 4))


def warm_starts(store: Store, spec: StudySpec, space: SearchSpace) -> dict[str, Values]:
    """The parameters of the best recipes of the studies of `warm_start`, in this space.

    Raises:
        UsageError: there is no such study, nothing is scored in it, or its recipe does not fit.
    """
    found = {}
    for name in spec.warm_start:
        other = open_study(store, name)
        best = other.best()
        if best is None:
            raise UsageError(f"warm_start: study '{name}' has no scored trial; run it first")
        values = space.values_of(other.space.values(best.params), recipe_of(best))
        if values is None:
            raise UsageError(
                f"warm_start: the best recipe of study '{name}' is none of this search space; "
                "name studies of the same models, merge methods and layer groups"
            )
        found[f"best of {name}"] = values
    return found


def unsearched(
    spec: StudySpec, space: SearchSpace, models: OpenedModels
) -> dict[str, dict[str, object]]:
    """Merges that `study test` scores beside the baseline; see `SearchSpace.unsearched`.

    Where they have no chat template of their own they get the baseline's.
    """
    found = space.unsearched()
    if spec.host is None:
        merge = space.recipe(space.baseline())
        found = {
            name: with_chat_template(recipe, merge, models.named) for name, recipe in found.items()
        }
    return {name: recipe.model_dump(mode="json") for name, recipe in found.items()}


def own_recipes(
    space: SearchSpace, architecture: Architecture, models: OpenedModels
) -> dict[str, dict[str, object]]:
    """Attributes of the trials of sources that are themselves only as they are.

    A merge of such a model alone has the first model's configuration, and so is another one.
    """
    if not isinstance(space, ParameterSpace) or space.spec.host is not None:
        return {}  # in another model it has that one's configuration, too
    merge = space.recipe(space.baseline())
    found = {
        alias: with_chat_template(space.source(alias), merge, models.named)
        for alias in space.spec.models
        if f"models.{alias}" in architecture.others
    }
    return {
        f"source {alias}": {RECIPE: recipe.model_dump(mode="json")}
        for alias, recipe in found.items()
    }
