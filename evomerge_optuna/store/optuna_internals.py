"""What Optuna keeps to itself and this program needs: each private name of Optuna's is here alone.

Read in the versions of `READ_IN`. An upgrade of Optuna is a look at this module and at its test.
"""

import copy
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler, QMCSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    import grpc
    from cmaes import CMA
    from optuna.artifacts._protocol import ArtifactStore as ArtifactStore
    from optuna.study._frozen import FrozenStudy

READ_IN = ("5.0.0",)

# System attributes of studies and trials.
ARTIFACT = "artifacts:"  # + the id of an attached file
ENQUEUED = "fixed_params"  # the parameters that a waiting trial is to have, by their names
_CMA, _GENERATION = "cma:", ":generation"  # how names of samplers' attributes begin, or end

NO_RECORD = "Record does not exist."  # the KeyError of a study or trial that is gone


def study_id(study: "optuna.Study | FrozenStudy") -> int:
    """The study's id in the database, which it loses when it is renamed."""
    return study._study_id


def trial_id(trial: optuna.Trial | FrozenTrial) -> int:
    """The trial's id in the database."""
    return trial._trial_id


def study_attributes(study: optuna.Study) -> dict[str, Any]:
    """The study's system attributes, as they are now."""
    return study._storage.get_study_system_attrs(study._study_id)


def set_study_attribute(study: optuna.Study, name: str, value: object) -> None:
    """Sets a system attribute of the study."""
    study._storage.set_study_system_attr(study._study_id, name, cast(Any, value))


def require_study(study: optuna.Study) -> None:
    """Asks the database itself, of which Optuna caches nothing there, for the study.

    Raises:
        KeyError: it is gone.
    """
    study._storage.get_study_user_attrs(study._study_id)


def add_running_trial(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Stores a trial whole, in one transaction, and gives it; `study.add_trial` does not."""
    return optuna.Trial(study, study._storage.create_new_trial(study._study_id, trial))


def set_trial_attribute(study: optuna.Study, trial: FrozenTrial, name: str, value: object) -> None:
    """Sets a user attribute of a trial that another process may be running.

    Raises:
        UpdateFinishedTrialError: it is finished.
    """
    study._storage.set_trial_user_attr(trial._trial_id, name, value)


def set_sampler_attribute(
    study: optuna.Study, trial: FrozenTrial, name: str, value: object
) -> None:
    """Sets a system attribute of the trial that a sampler is drawing."""
    study._storage.set_trial_system_attr(trial._trial_id, name, cast(Any, value))


def stored_trial(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    """The trial as it is stored now; `trial.user_attrs` are those of when it was taken."""
    return study._storage.get_trial(trial._trial_id)


def is_finished(study: optuna.Study, trial: optuna.Trial) -> bool:
    """Is the trial finished, by whomever?"""
    return stored_trial(study, trial).state.is_finished()


def sampler_state(trial: FrozenTrial) -> dict[str, Any]:
    """The system attributes in which a sampler keeps its state and a trial's generation."""
    kept = trial.system_attrs.items()
    return {k: v for k, v in kept if k.startswith(_CMA) or k.endswith(_GENERATION)}


def with_trials(
    study: optuna.Study, trials: Sequence[FrozenTrial], written: dict[str, object] | None = None
) -> optuna.Study:
    """The study as a sampler reads it, with these trials alone, which are not read again.

    Args:
        written: gets the attributes that the sampler writes for a trial that is not stored yet;
            without it they are written to the database.
    """
    # Not by its name, which may be another study's by now.
    seen = copy.copy(study)
    seen._storage = cast(Any, _GivenTrials(study._storage, trials, written))
    return seen


class _GivenTrials:
    """A storage, as far as samplers ask it."""

    def __init__(
        self, storage: BaseStorage, trials: Sequence[FrozenTrial], written: dict[str, object] | None
    ) -> None:
        self._storage, self._trials, self._written = storage, trials, written

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        assert not deepcopy  # no sampler of ours asks for it
        return [t for t in self._trials if states is None or t.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        if self._written is None:
            self._storage.set_trial_system_attr(trial_id, key, cast(Any, value))
        else:
            self._written[key] = value


class OpenCmaEsSampler(CmaEsSampler):
    """Optuna's CMA-ES, whose parts a subclass can replace.

    A generation's optimizer is stored with the first trial of it, and is taken from there as soon
    as it is; Optuna takes it once that trial is scored, and until then computes it again, and draws
    by another seed. So trials that are drawn at once are those that are drawn one by one.
    """

    _running: Sequence[FrozenTrial] = ()

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        self._running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return super().sample_relative(study, trial, search_space)

    def restore(self, state: str) -> "CMA":
        """The optimizer of a stored state, a pickle in hexadecimal digits.

        It is that of the latest generation; Optuna takes that of the latest trial, which among many
        workers may be the repeat of an old one.
        """
        raise NotImplementedError

    def as_drawn(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial of a generation, with all parameters that the optimizer drew for it."""
        return trial

    def _get_solution_trials(self, trials: list[FrozenTrial], generation: int) -> list[FrozenTrial]:
        return [self.as_drawn(t) for t in super()._get_solution_trials(trials, generation)]

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> "CMA | None":
        first = f"{self._attr_key_optimizer}:0"
        trials = (*completed_trials, *self._running)
        carriers = [t.system_attrs for t in trials if first in t.system_attrs]
        if not carriers:
            return None
        latest = max(carriers, key=lambda attributes: attributes[self._attr_key_generation])
        parts = {k: v for k, v in latest.items() if k.startswith(self._attr_key_optimizer)}
        return self.restore(self._concat_optimizer_attrs(parts))


class OpenQMCSampler(QMCSampler):
    """Optuna's quasi-random sampler, whose place in the sequence a subclass says."""

    def place(self, study: optuna.Study) -> int:
        """Which point of the sequence is drawn, 0 for the first.

        Optuna counts what it has drawn, also for trials that were cut short and are drawn again.
        """
        raise NotImplementedError

    def _find_sample_id(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution]
    ) -> int:
        return self.place(study)


def serve_trials(storage: BaseStorage, server: "grpc.Server") -> None:
    """Adds the trials' service to a server; `run_grpc_proxy_server` takes no service beside it."""
    from optuna.storages._grpc.auto_generated import api_pb2_grpc
    from optuna.storages._grpc.servicer import OptunaStorageProxyService

    service = OptunaStorageProxyService(optuna.storages.get_storage(storage))
    api_pb2_grpc.add_StorageServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]


def is_of_another_schema(error: RuntimeError) -> bool:
    """Did a storage refuse the tables of another version of Optuna?"""
    return "table schema" in str(error)


def can_be_upgraded(error: RuntimeError) -> bool:
    """Are those tables of an older version?"""
    return "storage upgrade" in str(error)
