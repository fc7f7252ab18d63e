"""Studies in a store: opened, compared with their spec and models, listed, deleted."""

import difflib
import shlex
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import (
    SpecError,
    StudyBusyError,
    StudyChangedError,
    UsageError,
)
from evomerge_optuna.recipes.recipe import Recipe, parse_recipe
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spec import (
    AdapterStudySpec,
    StagedStudySpec,
    StudySpec,
    differences,
    parse_spec,
)
from evomerge_optuna.spec.samplers import AUTO
from evomerge_optuna.store.lock import hold
from evomerge_optuna.store.optuna_internals import ARTIFACT, study_attributes, trial_id
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.foreign import is_foreign
from evomerge_optuna.study.schema import (
    BASELINE,
    DAY,
    IDENTITY,
    LAYERS,
    RECIPE,
    SPEC,
    START,
)
from evomerge_optuna.study.trials import Trials, lease_of

if TYPE_CHECKING:
    from evomerge_optuna.evaluation.tasks import Tasks


@dataclass(eq=False)
class MergeStudy:
    """An Optuna study together with the spec that is stored with it.

    `study` and `spec` change where it is renamed while something works on it: see `renamed`.
    """

    store: Store
    study: optuna.Study
    spec: StudySpec
    space: SearchSpace
    identity: str | None = None  # None: of an older version, which has never been run since
    _foreign: dict[int, bool] = field(default_factory=dict)  # of finished trials, by their ids
    _start: Values | None = None  # where CMA-ES begins, once it is known

    @property
    def name(self) -> str:
        """The database's name of it, which may have been changed in the dashboard."""
        return self.study.study_name

    @property
    def quoted_name(self) -> str:
        """Its name as an argument in a shell."""
        return shlex.quote(self.name)

    @cached_property
    def tasks(self) -> "Tasks":
        """What runs its tasks. Problems are loaded once; `check_unchanged` begins anew."""
        from evomerge_optuna.evaluation.tasks import runners

        return runners(self.spec.tasks)

    def read(self) -> Trials:
        """All trials as they are now; the methods below read them for one question each."""
        everything = self.study.get_trials(deepcopy=False)
        foreign = {trial.number for trial in everything if self._is_foreign(trial)}
        return Trials(everything, self.spec.objectives, foreign)

    def attributes(self) -> Mapping[str, Any]:
        """What is stored with the study itself, by the names of `schema`."""
        return self.study.user_attrs

    def as_read(self) -> "MergeStudy":
        """The study as it is now: what is asked of it then is read once, and stays as it was."""
        seen = _StudyAsRead(
            self.store, self.study, self.spec, self.space, self.identity, self._foreign
        )
        if "tasks" in vars(self):
            seen.tasks = self.tasks
        return seen

    def _is_foreign(self, trial: FrozenTrial) -> bool:
        if not trial.state.is_finished():
            return False
        known = self._foreign.get(trial_id(trial))
        if known is None:
            known = is_foreign(trial, self._parameters, [o.target for o in self.spec.objectives])
            self._foreign[trial_id(trial)] = known
        return known

    @cached_property
    def _parameters(self) -> Set[str]:
        return self.space.ranges().keys()

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
    def day(self) -> date | None:
        """When it was created; None: by an earlier version, which did not note it."""
        given: str | None = self.attributes().get(DAY)
        return None if given is None else date.fromisoformat(given)

    @property
    def start(self) -> Values | None:
        """Where CMA-ES begins; None: in the middle. Ask once the given trials are finished.

        It is stored then, since one that has failed may be tried again.
        """
        if not self.spec.starts:
            return self._stored_start
        if self._start is None:
            self._start = self.attributes().get(START) or self._best_given()
        return self._start

    @cached_property
    def _stored_start(self) -> Values | None:
        given: Values | None = self.attributes().get(START)
        return given

    def _best_given(self) -> Values | None:
        best = next((trial for trial in self.ranked() if BASELINE in trial.user_attrs), None)
        if best is None:
            return None
        self.study.set_user_attr(START, best.params)
        return best.params


@dataclass(eq=False)
class _StudyAsRead(MergeStudy):
    def __post_init__(self) -> None:
        self._trials, self._attributes = super().read(), super().attributes()

    def read(self) -> Trials:
        return self._trials

    def attributes(self) -> Mapping[str, Any]:
        return self._attributes


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


def open_study(store: Store, name: str) -> MergeStudy:
    """Opens a study by its name alone; models are not touched.

    Raises:
        UsageError: there is no such study, or it was not made by this program.
    """
    try:
        study = optuna.load_study(study_name=name, storage=store.rdb)
    except KeyError as error:
        raise _no_such_study(store, name) from error
    attributes = study.user_attrs
    stored, layers = attributes.get(SPEC), attributes.get(LAYERS)
    if stored is None or layers is None:
        raise UsageError(
            f"study '{name}' has no spec: its creation was cut short, or another program made it; "
            "run its spec file, or delete it"
        )
    stored = {"starts": False} | stored  # of an earlier version, which knew none
    # It may have been renamed since.
    spec = parse_spec(stored, origin=f"study {name}").model_copy(update={"study": name})
    return MergeStudy(store, study, spec, make_space(spec, layers), attributes.get(IDENTITY))


def _no_such_study(store: Store, name: str) -> UsageError:
    """Names the likeliest of those that there are, which may be many."""
    known = optuna.get_all_study_names(store.rdb)
    close = [f"'{found}'" for found in difflib.get_close_matches(name, known, n=3)]
    cure = "evomerge-optuna study list lists all studies"
    if close:
        cure = f"did you mean {' or '.join(close)}?"
    elif not known:
        cure = "it has no studies yet"
    return UsageError(f"there is no study '{name}' in {store}; {cure}")


def exists(store: Store, name: str) -> bool:
    """Is there a complete study of this name?"""
    try:
        study = optuna.load_study(study_name=name, storage=store.rdb)
    except KeyError:
        return False
    return SPEC in study.user_attrs


def continue_with(stored: MergeStudy, given: StudySpec) -> MergeStudy:
    """The study with a spec that is given anew: `trials`, `stop`, `evaluation` may have changed.

    They decide how long and how fast a study runs, not what it searches; the new values are stored.
    What decides the scores, `evaluation.dtype` and `evaluation.engine`, stays.

    Raises:
        StudyChangedError: naming every other key that differs.
    """
    given = given.decided_as(stored.spec)
    if isinstance(stored.spec, StagedStudySpec) and isinstance(given, StagedStudySpec):
        given = given.model_copy(update={"merged": stored.spec.merged})
    if "starts" not in given.model_fields_set:
        given = given.model_copy(update={"starts": stored.spec.starts})
    if given.sampler.name == AUTO:
        chosen = given.sampler.model_copy(update={"name": stored.spec.sampler.name})
        given = given.model_copy(update={"sampler": chosen})
    own = stored.spec.evaluation
    same = {"dtype": own.dtype, "engine": own.engine}
    free: dict[str, object] = {
        "trials": given.trials,
        "stop": given.stop,
        "evaluation": given.evaluation.model_copy(update=same),
    }
    if isinstance(given, AdapterStudySpec):
        free["baselines"] = given.baselines
    changed = differences(stored.spec.model_copy(update=free), given)
    if changed:
        raise StudyChangedError(
            f"study '{stored.name}' was begun with another spec ({'; '.join(changed)}); "
            "put the old values back, or give the study a new name"
        )
    if differences(stored.spec, given):
        store_spec(stored.study, given)
    return replace(stored, spec=given)


def list_studies(store: Store, say: Callable[[str], None] = lambda _: None) -> list[StudySummary]:
    """All studies of this program in a store, by name.

    Args:
        say: called with a line for each study that this version cannot read.
    """
    found = []
    for name in sorted(optuna.get_all_study_names(store.rdb)):
        if exists(store, name):
            try:
                found.append(summarize(open_study(store, name).as_read()))
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
    from optuna.artifacts.exceptions import ArtifactNotFound  # imports boto3

    with hold(store.locks, name):
        try:
            study = optuna.load_study(study_name=name, storage=store.rdb)
        except KeyError as error:
            raise _no_such_study(store, name) from error
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if any((own := lease_of(trial)) and store.locks.is_alive(own) for trial in running):
            raise StudyBusyError(
                f"study '{name}' in {store} is being run; stop its workers, then try again"
            )
        owners = [study_attributes(study)]
        owners += [trial.system_attrs for trial in study.get_trials(deepcopy=False)]
        for key in (key for attributes in owners for key in attributes):
            # Not by get_all_artifact_meta, which fails where the dashboard has deleted one.
            if key.startswith(ARTIFACT):
                with suppress(ArtifactNotFound, ValueError):  # the latter: of a path, not an id
                    store.artifacts.remove(key.removeprefix(ARTIFACT))
        optuna.delete_study(study_name=name, storage=store.rdb)


def store_spec(study: optuna.Study, spec: StudySpec) -> None:
    """Whole, so that a later version's other defaults do not change a study that exists."""
    study.set_user_attr(SPEC, spec.model_dump(mode="json", by_alias=True))
