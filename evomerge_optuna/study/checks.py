"""What is checked before a study is made: its tasks, its search space, memory and weights.

The models themselves are checked by their family; see `families.check_models`.
"""

from collections.abc import Iterator

from evomerge_optuna.engines import check_engine, engine_memory
from evomerge_optuna.engines.costs import cache_per_token
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.asked import check_asked
from evomerge_optuna.evaluation.data import check_data
from evomerge_optuna.evaluation.image_prompts import check_image_tasks
from evomerge_optuna.evaluation.tasks import Tasks, runners
from evomerge_optuna.explain import counted
from evomerge_optuna.families import family_of, family_of_host
from evomerge_optuna.families.adapters import check_adapter_values
from evomerge_optuna.families.base import Architecture
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import AdapterStudySpec, Choices, StudySpec
from evomerge_optuna.spec.samplers import Sampler
from evomerge_optuna.study.directions import unusual_directions

_MANY = 300  # parameters; to store one takes three statements, see benchmarks/README.md


def runnable_tasks(spec: StudySpec) -> Tasks:
    """What runs the spec's tasks.

    Raises:
        SpecError: the engine is not here, or does not run the study's candidates or a task; naming
            `evaluation.engine`, an argument of it, or the task.
    """
    tasks = runners(spec.tasks)
    check_asked(tasks, family_of_host(spec.host), spec.evaluation.row)
    if isinstance(spec, AdapterStudySpec) and "adapters" in (lacks := spec.evaluation.row.lacks):
        raise SpecError(
            f"evaluation.engine: the study {lacks['adapters']}; write engine: transformers"
        )
    check_engine(spec.evaluation)
    return tasks


def check_tasks(spec: StudySpec, tasks: Tasks, models: OpenedModels) -> None:
    """Loads all problems of the tasks, and looks at them.

    Raises:
        SpecError: a task does not fit the models, its data cannot be used, or splits overlap.
    """
    check_image_tasks(spec, models)
    _check_languages(spec)
    check_data(tasks)
    _check_racing(spec, tasks)


def check_space(space: SearchSpace, sampler: Sampler) -> None:
    """Refuses a space in which there is nothing to search, or nothing that the sampler searches.

    Raises:
        SpecError: every value is fixed, or a parameter is of a kind that the sampler does not know.
    """
    if not space.ranges():
        raise SpecError(
            "merge: there is nothing to search, for every value is fixed; give one of them a range "
            "[low, high]"
        )
    for name, dimension in space.ranges().items():
        is_list = isinstance(dimension, Choices)
        if is_list and not sampler.categories:
            raise SpecError(
                f"sampler: {sampler.title} searches numbers alone, and {name} is a {dimension}; "
                "write sampler: catcma, or sampler: gp"
            )
        if not is_list and not sampler.numbers:
            raise SpecError(
                f"sampler: {sampler.title} tries every combination of choices, and {name} is a "
                f"{dimension}; write a list of choices, or another sampler"
            )


def description(
    spec: StudySpec, tasks: Tasks, architecture: Architecture, space: SearchSpace
) -> Iterator[str]:
    """What the models are and what is searched, and what the user should know of both."""
    depths = sorted({*architecture.layers.values()})
    layers = "" if depths == [1] else f"{' + '.join(map(str, depths))} layers, "
    searched = len(space.ranges())
    yield (
        f"{architecture.name}, {layers}{architecture.parameters / 1e6:,.1f}M parameters; "
        f"{counted(searched, 'parameter')} to search"
    )
    yield from architecture.remarks
    yield from unusual_directions(spec, tasks)
    if searched > _MANY:
        yield f"Warning: storing so many parameters takes longer than many a trial; {space.fewer}"


def memory_plan(spec: StudySpec, models: OpenedModels, architecture: Architecture) -> str:
    """How much memory and disk the study needs, in one line.

    Raises:
        SpecError: this machine has too little.
    """
    from evomerge_optuna.devices import torch_device
    from evomerge_optuna.machine import this_machine  # imports torch
    from evomerge_optuna.merging.adapters.merger import adapters_size
    from evomerge_optuna.merging.memory_check import check_memory
    from evomerge_optuna.merging.memory_plan import ModelFacts

    headers = {
        key: family_of(model).merged_headers(model, spec.components)
        for key, model in models.items()
    }
    host = None if spec.host_key is None else models[spec.host_key]
    engine = engine_memory(spec.evaluation, _batch(spec, models, architecture))
    facts = ModelFacts(
        engine=engine.engine,
        cache=engine.cache,
        devices=engine.devices,
        loaded_in=architecture.dtypes,
        tokens=architecture.tokens,
        adapters=adapters_size(spec) if isinstance(spec, AdapterStudySpec) else (0, 0),
        kept=0 if host is None else family_of(host).kept_size(host, spec.components),
    )
    return check_memory(spec, headers, this_machine(torch_device(spec.evaluation.device)), facts)


def _batch(spec: StudySpec, models: OpenedModels, architecture: Architecture) -> int:
    """Bytes of the keys and values of a batch's longest answers."""
    longest = max(getattr(task, "max_new_tokens", 0) for task in spec.tasks.values())
    if not longest:
        return 0
    first, model = next(iter(models.items()))
    dtype = spec.evaluation.dtype or spec.dtype or architecture.dtypes.get(first) or "float32"
    itemsize = 4 if dtype == "float32" else 2
    per_token = cache_per_token(model.config.get_text_config(), itemsize)
    return spec.evaluation.batch_size * longest * per_token


def check_all_weights(spec: StudySpec, models: OpenedModels, space: SearchSpace) -> list[str]:
    """Reads every tensor once, and checks that all can be merged.

    Returns:
        Remarks for the user, one line each.

    Raises:
        SpecError: naming the model and the tensor.
    """
    from evomerge_optuna.families.weights import check_weights
    from evomerge_optuna.merging.check import check_merge  # imports torch

    if isinstance(spec, AdapterStudySpec):
        check_weights(spec, {"base_model": models["base_model"]})
        check_adapter_values(models)
        return []
    check_weights(spec, models)
    recipe = space.recipe(space.baseline())  # all others read the same
    assert not isinstance(recipe, AdapterRecipe)
    merges = [recipe] if isinstance(recipe, MergeRecipe) else recipe.merges.values()
    return [line for merge in merges for line in check_merge(merge, models.named)]


def _check_racing(spec: StudySpec, tasks: Tasks) -> None:
    """Refuses more blocks than a task has problems, and a score that is no mean of blocks."""
    if spec.racing is None:
        return
    for runner in tasks.values():
        if runner.name == spec.objective.task and not runner.is_mean:
            raise SpecError(
                f"racing: {spec.objective.target} is not a mean over problems, so blocks of "
                "problems do not say how high it is; remove racing"
            )
        problems = len(runner.problems("search"))
        if problems < spec.racing.blocks:
            raise SpecError(
                f"racing.blocks: {spec.racing.blocks}, but {runner.key}.data.search has "
                f"{problems} problems; write no more blocks than that"
            )


def _check_languages(spec: StudySpec) -> None:
    from evomerge_optuna.evaluation.language import known_languages

    for name, task in spec.tasks.items():
        language = getattr(task, "language", None)
        if language is not None and language not in known_languages():
            raise SpecError(
                f"tasks.{name}.language: lid.176 does not know '{language}'; write an ISO 639 "
                "code such as ja"
            )
