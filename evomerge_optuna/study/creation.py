"""A study is created: models, data and memory are checked, then it is written to the database."""

from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import optuna
from optuna.trial import TrialState

from evomerge_optuna.errors import SpecError, StudyExistsError, UsageError
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.image_prompts import check_image_tasks
from evomerge_optuna.evaluation.tasks import Tasks, runners
from evomerge_optuna.evaluation.user_code import fingerprint_code
from evomerge_optuna.families import check_models, family_of, with_host
from evomerge_optuna.families.base import Architecture
from evomerge_optuna.merging.tokenizer import with_chat_template
from evomerge_optuna.models.opened import OpenedModel, OpenedModels
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import StagedStudySpec, StudySpec
from evomerge_optuna.store.lock import hold
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.directions import unusual_directions
from evomerge_optuna.study.prompts import prompts_of
from evomerge_optuna.study.renamed import new_identity
from evomerge_optuna.study.schema import (
    BASELINE,
    DATA,
    DAY,
    FINGERPRINTS,
    IDENTITY,
    LAYERS,
    PROMPTS,
    RECIPE,
    SPEC,
    START,
    VERSIONS,
)
from evomerge_optuna.study.studies import (
    MergeStudy,
    exists,
    model_fingerprints,
    open_study,
    recipe_of,
    store_spec,
    versions_of,
)

_MANY = 300  # parameters; to store one takes three statements, see benchmarks/README.md


def create_study(
    store: Store, spec: StudySpec, say: Callable[[str], None] = lambda _: None
) -> MergeStudy:
    """Makes a study: checks of models and data, fingerprints, then the rows in the database.

    The baseline of the search space is its first trial; to the first population of NSGA-II and
    NSGA-III the sources belong, too; after them come the best recipes of `warm_start`.

    Raises:
        SpecError: models or data do not fit; nothing was stored.
        StudyExistsError: a study of this name exists.
    """
    if exists(store, spec.study):
        raise _exists_already(store, spec.study)
    spec = with_merged(store, spec)
    models = OpenedModels(spec.model_ids())
    spec = with_host(spec, models)
    code = fingerprint_code(spec)
    architecture = check_models(spec, models)
    check_image_tasks(spec, models)
    tasks = runners(spec.tasks)
    _check_languages(spec)
    check_data(tasks)
    _check_racing(spec, tasks)
    space, day = make_space(spec, architecture.layers), date.today()
    prompts = prompts_of(spec, space, tasks, day)
    if not space.ranges():
        raise SpecError(
            "merge: there is nothing to search, for every value is fixed; give one of them a range "
            "[low, high]"
        )
    say(
        f"{architecture.name}, {' + '.join(map(str, sorted({*architecture.layers.values()})))} "
        f"layers, {architecture.parameters / 1e6:,.1f}M parameters; "
        f"{len(space.ranges())} {'parameter' if len(space.ranges()) == 1 else 'parameters'} "
        "to search"
    )
    for remark in (*architecture.remarks, *unusual_directions(spec, tasks)):
        say(remark)
    if len(space.ranges()) > _MANY:
        say(f"Warning: storing so many parameters takes longer than many a trial; {space.fewer}")
    say(_memory_plan(spec, models, architecture))
    for line in _check_weights(spec, models, space):
        say(line)
    warm = _warm_starts(store, spec, space)
    identity = new_identity()
    attributes = {
        VERSIONS: versions_of(spec),
        FINGERPRINTS: model_fingerprints(spec),
        DATA: fingerprint_data(tasks) | code,
        PROMPTS: prompts,
        DAY: day.isoformat(),
        LAYERS: architecture.layers,
        IDENTITY: identity,
        **({START: next(iter(warm.values()))} if warm else {}),
    }
    with hold(store.locks, spec.study):
        _remove_unfinished_creation(store, spec.study)
        study = optuna.create_study(
            storage=store.rdb,
            study_name=spec.study,
            directions=[objective.direction for objective in spec.objectives],
        )
        for name, value in attributes.items():
            study.set_user_attr(name, value)
        sources = _own_recipes(space, architecture)
        for name, values in {**_baselines(spec, space), **warm}.items():
            study.enqueue_trial(values, user_attrs={BASELINE: name, **sources.get(name, {})})
        store_spec(study, spec)
    return MergeStudy(store, study, spec, space, identity)


def with_merged(store: Store, spec: StudySpec) -> StudySpec:
    """The spec with the recipe of the merge that it stacks, if another study has found it.

    Raises:
        UsageError: there is no such study, or nothing is scored in it, or it searches no merge.
    """
    if not isinstance(spec, StagedStudySpec) or spec.merged is not None:
        return spec
    found = open_study(store, spec.from_study)
    best = found.best()
    recipe = None if best is None else recipe_of(best)
    if not isinstance(recipe, MergeRecipe):
        raise UsageError(
            f"from_study: study '{spec.from_study}' "
            + ("has no scored trial; run it first" if best is None else "searches no merge")
        )
    return spec.model_copy(update={"merged": recipe})


def _remove_unfinished_creation(store: Store, name: str) -> None:
    """Removes what a creation that was cut short left, to begin again.

    Raises:
        StudyExistsError: it was made meanwhile.
        UsageError: another program made it.
    """
    try:
        study = optuna.load_study(study_name=name, storage=store.rdb)
    except KeyError:
        return
    if SPEC in study.user_attrs:
        raise _exists_already(store, name)
    trials = study.get_trials(deepcopy=False)
    begun = [trial for trial in trials if trial.state is not TrialState.WAITING]
    is_ours = VERSIONS in study.user_attrs  # which is written first
    if begun or (not is_ours and (trials or study.user_attrs)):
        raise UsageError(
            f"study '{name}' exists in {store}, made by another program; choose another name"
        )
    optuna.delete_study(study_name=name, storage=store.rdb)


def _exists_already(store: Store, name: str) -> StudyExistsError:
    return StudyExistsError(
        f"study '{name}' exists in {store}; resume it with study run {name}, or choose another name"
    )


def _baselines(spec: StudySpec, space: SearchSpace) -> dict[str, dict[str, float]]:
    """Parameters to begin with, by what they are."""
    first = {space.baseline_name: space.baseline()}
    if not spec.sampler.row.learns_from_others:
        return first
    return first | {f"source {alias}": values for alias, values in space.sources().items()}


def _own_recipes(space: SearchSpace, architecture: Architecture) -> dict[str, dict[str, Any]]:
    """Attributes of the trials of source models that are themselves only as they are.

    A merge of such a model alone has the first model's configuration, and so is another one.
    """
    if not isinstance(space, ParameterSpace) or space.spec.host is not None:
        return {}  # in another model it has that one's configuration, too
    merge = space.recipe(space.baseline())
    return {
        f"source {alias}": {
            RECIPE: with_chat_template(space.source(alias), merge).model_dump(mode="json")
        }
        for alias in space.spec.models
        if f"models.{alias}" in architecture.others
    }


def _warm_starts(store: Store, spec: StudySpec, space: SearchSpace) -> dict[str, dict[str, float]]:
    """Where the best recipes of the studies of `warm_start` lie in this space.

    Raises:
        UsageError: there is no such study, nothing is scored in it, or its recipe does not fit.
    """
    found = {}
    for name in spec.warm_start:
        best = open_study(store, name).best()
        if best is None:
            raise UsageError(f"warm_start: study '{name}' has no scored trial; run it first")
        values = space.values_of(best.params, recipe_of(best))
        if values is None:
            raise UsageError(
                f"warm_start: the best recipe of study '{name}' is none of this search space; "
                "name studies of the same models"
            )
        found[f"best of {name}"] = values
    return found


def _check_racing(spec: StudySpec, tasks: Tasks) -> None:
    """Refuses more blocks than a task has problems, and scores that no blocks tell of."""
    if spec.racing is None:
        return
    for runner in tasks.values():
        if runner.name == spec.objective.task and not runner.is_mean:
            raise SpecError(
                f"racing: {spec.objective.target} is no mean over problems, so that blocks of "
                "them do not tell it; remove racing"
            )
        problems = len(runner.problems("search"))
        if problems < spec.racing.blocks:
            raise SpecError(
                f"racing.blocks: {spec.racing.blocks}, but {runner.key}.data.search has "
                f"{problems} problems; write no more blocks than that"
            )


def _memory_plan(
    spec: StudySpec, models: Mapping[str, OpenedModel], architecture: Architecture
) -> str:
    """What the study needs; refuses what cannot fit into this machine."""
    from evomerge_optuna.machine import this_machine  # imports torch
    from evomerge_optuna.merging.memory_plan import ModelFacts, check_memory
    from evomerge_optuna.models.loading import torch_device

    headers = {key: family_of(model).merged_headers(model) for key, model in models.items()}
    host = None if spec.host_key is None else models[spec.host_key]
    facts = ModelFacts(
        loaded_in=architecture.dtypes,
        tokens=architecture.tokens,
        kept=0 if host is None else family_of(host).kept_size(host),
    )
    return check_memory(spec, headers, this_machine(torch_device(spec.evaluation.device)), facts)


def _check_weights(
    spec: StudySpec, models: Mapping[str, OpenedModel], space: SearchSpace
) -> list[str]:
    """Refuses weights that cannot be merged; what is worth a remark, a line each."""
    from evomerge_optuna.families.weights import check_weights
    from evomerge_optuna.merging.check import check_merge  # imports torch

    check_weights(spec, models)
    recipe = space.recipe(space.baseline())  # all others read the same
    merges = [recipe] if isinstance(recipe, MergeRecipe) else recipe.merges.values()
    return [line for merge in merges for line in check_merge(merge)]


def _check_languages(spec: StudySpec) -> None:
    from evomerge_optuna.evaluation.language import known_languages

    for name, task in spec.tasks.items():
        language = getattr(task, "language", None)
        if language is not None and language not in known_languages():
            raise SpecError(
                f"tasks.{name}.language: lid.176 does not know '{language}'; write an ISO 639 "
                "code such as ja"
            )
