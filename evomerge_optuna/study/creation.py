"""A study is created: models, data and memory are checked, then it is written to the database."""

import shlex
from collections.abc import Callable
from datetime import date

import optuna
from optuna.trial import TrialState

from evomerge_optuna.errors import StudyExistsError, UsageError
from evomerge_optuna.evaluation.data import fingerprint_data
from evomerge_optuna.evaluation.user_code import fingerprint_code
from evomerge_optuna.families import check_models, completed
from evomerge_optuna.families.diffusion.lora import fingerprint_lora
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import StagedStudySpec, StudySpec
from evomerge_optuna.store.lock import hold
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.auto_sampler import with_sampler
from evomerge_optuna.study.checks import (
    check_all_weights,
    check_space,
    check_tasks,
    description,
    memory_plan,
    runnable_tasks,
)
from evomerge_optuna.study.first_trials import (
    baselines,
    own_recipes,
    starts,
    unsearched,
    warm_starts,
)
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
    SPEC,
    START,
    UNSEARCHED,
    VERSIONS,
)
from evomerge_optuna.study.studies import MergeStudy, exists, open_study, recipe_of, store_spec
from evomerge_optuna.study.unchanged import model_fingerprints, versions_of


def create_study(
    store: Store,
    spec: StudySpec,
    say: Callable[[str], None] = lambda _: None,
    check: Callable[[StudySpec, SearchSpace], None] = lambda *_: None,
) -> MergeStudy:
    """Makes a study: checks of models and data, fingerprints, then the rows in the database.

    The baseline of the search space is its first trial; of a genetic algorithm's population the
    sources are, too. Then come the points that people try by hand, and the best recipes of
    `warm_start`.

    Args:
        check: of the search, which this layer knows nothing of; it raises what it refuses.

    Raises:
        SpecError: models or data do not fit; nothing was stored.
        StudyExistsError: a study of this name exists.
    """
    if exists(store, spec.study):
        raise _exists_already(store, spec.study)
    spec = with_merged(store, spec)
    models = OpenedModels(spec.model_ids())
    spec = completed(spec, models)
    tasks = runnable_tasks(spec)
    code = fingerprint_code(spec) | fingerprint_lora(spec)
    architecture = check_models(spec, models)
    check_tasks(spec, tasks, models)
    spec, why = with_sampler(spec, architecture.layers)
    space, day = make_space(spec, architecture.layers), date.today()
    prompts = prompts_of(spec, space, tasks, models, day)
    check_space(space, spec.sampler.row)
    check(spec, space)
    for line in description(spec, tasks, architecture, space):
        say(line)
    if why:
        say(why)
    say(memory_plan(spec, models, architecture))
    for line in check_all_weights(spec, models, space):
        say(line)
    warm = warm_starts(store, spec, space)
    identity = new_identity()
    attributes = {
        VERSIONS: versions_of(spec),
        FINGERPRINTS: model_fingerprints(models),
        DATA: fingerprint_data(tasks) | code,
        PROMPTS: prompts,
        DAY: day.isoformat(),
        LAYERS: architecture.layers,
        UNSEARCHED: unsearched(spec, space, models),
        IDENTITY: identity,
        **({START: next(iter(warm.values()))} if warm and not spec.starts else {}),
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
        sources = own_recipes(space, architecture, models)
        first = {**baselines(spec, space), **starts(spec, space), **warm}
        for name, values in first.items():
            study.enqueue_trial(values, user_attrs={BASELINE: name, **sources.get(name, {})})
        store_spec(study, spec)
    created = MergeStudy(store, study, spec, space, identity)
    created.tasks = tasks
    return created


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
        f"study '{name}' exists in {store}; resume it with study run {shlex.quote(name)}, "
        "or choose another name"
    )
