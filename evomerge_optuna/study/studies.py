"""Studies in a store: made, opened, compared with their spec and models, listed, deleted."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property

import optuna
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import (
    SpecError,
    StudyBusyError,
    StudyChangedError,
    StudyExistsError,
    UsageError,
)
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.prompts import check_chats, check_eyes
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.evaluation.user_code import fingerprint_code
from evomerge_optuna.models.catalog import model_fingerprint
from evomerge_optuna.models.preflight import preflight, with_vision
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe, parse_recipe
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import LMEvalTask, StagedStudySpec, StudySpec, differences, parse_spec
from evomerge_optuna.study.lock import hold, lease_of
from evomerge_optuna.study.store import Store
from evomerge_optuna.study.trials import BASELINE, Trials
from evomerge_optuna.versions import engine_versions

# Study attributes. The spec is written last: a study without it is a creation cut short.
SPEC, VERSIONS, LAYERS = "spec", "versions", "layers"
FINGERPRINTS, DATA = "fingerprints", "data"
START = "start"  # parameters of the recipe that warms the study
# Trial attributes.
ERROR = "error"  # why a candidate could not be built or scored
RECIPE = "recipe"

_ARTIFACT = "artifacts:"  # + its id: Optuna's own attributes of studies and trials

_MANY = 300  # parameters; to store one takes three statements, see benchmarks/README.md


@dataclass(frozen=True)
class MergeStudy:
    """An Optuna study together with the spec that is stored with it."""

    store: Store
    study: optuna.Study
    spec: StudySpec
    space: SearchSpace

    @property
    def name(self) -> str:
        return self.spec.study

    def read(self) -> Trials:
        """All trials as they are now; the methods below ask one question each."""
        return Trials(self.study.get_trials(deepcopy=False), self.spec.objectives)

    def trials(self) -> list[FrozenTrial]:
        """All trials but those that others repeat."""
        return self.read().counted

    def finished(self) -> int:
        """Trials that count: scored, or failed by their own fault."""
        return self.read().finished

    def best(self) -> FrozenTrial | None:
        """The trial best on search in the first objective, of equals in the next, then the first.

        Never one that was stopped early. None before any trial is scored that keeps the
        constraints.
        """
        return self.read().best

    def ranked(self) -> list[FrozenTrial]:
        """Trials that keep the constraints, the best first; only those scored on all problems."""
        return self.read().ranked

    def front(self) -> list[FrozenTrial]:
        """The Pareto front, ranked, of equals the first; of one objective the best trial alone."""
        return self.read().front

    @cached_property
    def start(self) -> dict[str, float] | None:
        """Where CMA-ES begins: the recipe of the first study that warms this one."""
        given: dict[str, float] | None = self.study.user_attrs.get(START)
        return given


def recipe_of(trial: FrozenTrial) -> Recipe:
    """The recipe that a trial recorded."""
    return parse_recipe(trial.user_attrs[RECIPE])


@dataclass(frozen=True)
class StudySummary:
    """One line of `study list`."""

    name: str
    stage: str
    objective: str
    trials: int
    wanted: int
    best: float | None
    started: datetime | None


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
    spec = with_vision(with_merged(store, spec))
    code = fingerprint_code(spec)
    architecture = preflight(spec)
    check_chats(spec)
    check_eyes(spec)
    check_data(spec.tasks)
    _check_racing(spec)
    _check_languages(spec)
    space = make_space(spec, architecture.layers)
    if len(space.ranges()) < 2:
        raise SpecError(
            f"too few parameters to search ({len(space.ranges())}); CMA-ES needs two or more: "
            f"{space.more}"
        )
    say(
        f"{architecture.name}, {' + '.join(map(str, sorted({*architecture.layers.values()})))} "
        f"layers, {architecture.parameters / 1e6:,.1f}M parameters; "
        f"{len(space.ranges())} parameters to search"
    )
    if len(space.ranges()) > _MANY:
        say(f"Warning: storing so many parameters takes longer than many a trial; {space.fewer}")
    say(_memory_plan(spec))
    _check_weights(spec)
    warm = _warm_starts(store, spec, space)
    attributes = {
        VERSIONS: _versions(spec),
        FINGERPRINTS: model_fingerprints(spec),
        DATA: fingerprint_data(spec.tasks) | code,
        LAYERS: architecture.layers,
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
        for name, values in {**_baselines(spec, space), **warm}.items():
            study.enqueue_trial(values, user_attrs={BASELINE: name})
        _store_spec(study, spec)
    return MergeStudy(store, study, spec, space)


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


def open_study(store: Store, name: str) -> MergeStudy:
    """Opens a study by its name alone; models are not touched.

    Raises:
        UsageError: there is no such study, or it was not made by this program.
    """
    try:
        study = optuna.load_study(study_name=name, storage=store.rdb)
    except KeyError as error:
        known = optuna.get_all_study_names(store.rdb)
        raise UsageError(
            f"there is no study '{name}' in {store}; "
            + (f"studies are {', '.join(sorted(known))}" if known else "it has no studies yet")
        ) from error
    stored = study.user_attrs.get(SPEC)
    layers = study.user_attrs.get(LAYERS)
    if stored is None or layers is None:
        raise UsageError(
            f"study '{name}' has no spec: its creation was cut short, or another program made it; "
            "run its spec file, or delete it"
        )
    spec = parse_spec(stored, origin=f"study {name}")
    if isinstance(layers, int):  # as the first studies have it
        layers = dict.fromkeys(spec.model_ids(), layers)
    return MergeStudy(store, study, spec, make_space(spec, layers))


def exists(store: Store, name: str) -> bool:
    """Is there a complete study of this name?"""
    try:
        study = optuna.load_study(study_name=name, storage=store.rdb)
    except KeyError:
        return False
    return SPEC in study.user_attrs


def continue_with(stored: MergeStudy, given: StudySpec) -> MergeStudy:
    """The study with a spec that is given anew: only `trials` and `evaluation` may have changed.

    They decide how long and how fast a study runs, not what it searches; the new values are stored.
    What candidates are scored in, `evaluation.dtype`, decides their scores, so it stays.

    Raises:
        StudyChangedError: naming every other key that differs.
    """
    if given.vision is None:
        given = given.model_copy(update={"vision": stored.spec.vision})
    if isinstance(stored.spec, StagedStudySpec) and isinstance(given, StagedStudySpec):
        given = given.model_copy(update={"merged": stored.spec.merged})
    same = {"dtype": stored.spec.evaluation.dtype}
    free = {"trials": given.trials, "evaluation": given.evaluation.model_copy(update=same)}
    changed = differences(stored.spec.model_copy(update=free), given)
    if changed:
        raise StudyChangedError(
            f"study '{stored.name}' was begun with another spec ({'; '.join(changed)}); "
            "put the old values back, or give the study a new name"
        )
    if differences(stored.spec, given):
        _store_spec(stored.study, given)
    return replace(stored, spec=given)


def check_files_unchanged(stored: MergeStudy) -> None:
    """A study is continued only with the model files and the problems it began with.

    Raises:
        StudyChangedError: naming every model and data split that differs.
    """
    before, now = stored.study.user_attrs[FINGERPRINTS], model_fingerprints(stored.spec)
    changed = [
        f"{key} ({model}): {part} sha256 {before[key][part][:12]} -> {now[key][part][:12]}"
        for key, model in stored.spec.model_ids().items()
        for part in before[key]
        if before[key][part] != now[key][part]
    ]
    data_before = stored.study.user_attrs[DATA]
    data_now = fingerprint_code(stored.spec) | fingerprint_data(stored.spec.tasks)
    changed += [
        f"{split}: sha256 {data_before[split][:12]} -> {data_now[split][:12]}"
        for split in data_before
        if data_before[split] != data_now[split]
    ]
    if changed:
        raise StudyChangedError(
            f"study '{stored.name}' was begun with other files ({'; '.join(changed)}); "
            "put the old ones back, or give the study a new name"
        )


def changed_versions(stored: MergeStudy) -> list[str]:
    """The packages that have another version than when the study was created."""
    before, now = stored.study.user_attrs[VERSIONS], _versions(stored.spec)
    known = [name for name in now if name in before]
    return [f"{name} {before[name]} -> {now[name]}" for name in known if before[name] != now[name]]


def list_studies(store: Store, say: Callable[[str], None] = lambda _: None) -> list[StudySummary]:
    """All studies of this program in a store, by name.

    Args:
        say: told of studies that another version has made and this one cannot read.
    """
    found = []
    for name in sorted(optuna.get_all_study_names(store.rdb)):
        if exists(store, name):
            try:
                found.append(summarize(open_study(store, name)))
            except SpecError as error:
                say(f"Not shown, for this version cannot read it: {error}")
    return found


def summarize(merge_study: MergeStudy) -> StudySummary:
    best = merge_study.best()
    starts = [t.datetime_start for t in merge_study.trials() if t.datetime_start]
    return StudySummary(
        name=merge_study.name,
        stage=merge_study.spec.stage,
        objective=", ".join(f"{o.direction} {o.target}" for o in merge_study.spec.objectives),
        trials=merge_study.finished(),
        wanted=merge_study.spec.trials,
        best=None if best is None else float(best.values[0]),
        started=min(starts, default=None),
    )


def delete_study(store: Store, name: str) -> None:
    """Deletes a study, its trials and its artifacts.

    Raises:
        UsageError: there is no such study.
        StudyBusyError: a process works on it.
        StorageError: an artifact cannot be removed; the study is still there.
    """
    with hold(store.locks, name):
        try:
            study = optuna.load_study(study_name=name, storage=store.rdb)
        except KeyError as error:
            raise UsageError(f"there is no study '{name}' in {store}") from error
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if any((own := lease_of(trial)) and store.locks.is_alive(own) for trial in running):
            raise StudyBusyError(
                f"study '{name}' in {store} is being run; stop its workers, then try again"
            )
        owners = [store.rdb.get_study_system_attrs(study._study_id)]
        owners += [trial.system_attrs for trial in study.get_trials(deepcopy=False)]
        for key in (key for attributes in owners for key in attributes):
            # Not by get_all_artifact_meta, which fails where the dashboard has deleted one.
            if key.startswith(_ARTIFACT):
                with suppress(ArtifactNotFound):
                    store.artifacts.remove(key.removeprefix(_ARTIFACT))
        optuna.delete_study(study_name=name, storage=store.rdb)


def model_fingerprints(spec: StudySpec) -> dict[str, dict[str, str]]:
    """Hashes of every model's files, by its key in the spec."""
    return {key: asdict(model_fingerprint(model)) for key, model in spec.model_ids().items()}


def _versions(spec: StudySpec) -> dict[str, str]:
    has_harness = any(isinstance(task, LMEvalTask) for task in spec.tasks.values())
    return engine_versions("lm-eval") if has_harness else engine_versions()


def _store_spec(study: optuna.Study, spec: StudySpec) -> None:
    """Whole, so that a later version's other defaults do not change a study that exists."""
    study.set_user_attr(SPEC, spec.model_dump(mode="json", by_alias=True))


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
    begun = [t for t in study.get_trials(deepcopy=False) if t.state is not TrialState.WAITING]
    if SPEC in study.user_attrs:
        raise _exists_already(store, name)
    if begun:
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
    if spec.sampler.name == "cmaes":
        return first  # it has no population that others could enter
    return first | {f"source {alias}": values for alias, values in space.sources().items()}


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


def _check_racing(spec: StudySpec) -> None:
    """Refuses more blocks than a task has problems, and scores that no blocks tell of."""
    if spec.racing is None:
        return
    for runner in runners(spec.tasks).values():
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


def _memory_plan(spec: StudySpec) -> str:
    """What the study needs; refuses what cannot fit into this machine."""
    from evomerge_optuna.machine import this_machine  # imports torch
    from evomerge_optuna.merging.needs import plan_memory
    from evomerge_optuna.models.headers import read_headers
    from evomerge_optuna.models.loading import torch_device

    headers = {key: read_headers(model, key) for key, model in spec.model_ids().items()}
    return plan_memory(spec, headers, this_machine(torch_device(spec.evaluation.device)))


def _check_weights(spec: StudySpec) -> None:
    from evomerge_optuna.models.weights import check_weights  # imports torch

    check_weights(spec)


def _check_languages(spec: StudySpec) -> None:
    from evomerge_optuna.evaluation.language import known_languages

    for name, task in spec.tasks.items():
        language = getattr(task, "language", None)
        if language is not None and language not in known_languages():
            raise SpecError(
                f"tasks.{name}.language: lid.176 does not know '{language}'; write an ISO 639 "
                "code such as ja"
            )
