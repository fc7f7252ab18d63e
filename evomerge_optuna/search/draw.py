"""Drawing a trial's parameters before the trial is stored, so that it is stored whole.

Optuna stores a trial, then each parameter as it is suggested, a transaction each; the attributes in
which samplers keep their state are as many more. Here all of that is one transaction, and the
sampler looks at trials that were read before rather than reading them several times over.
"""

from collections.abc import Container
from dataclasses import asdict
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.store.lock import WORKER, Lease
from evomerge_optuna.study.studies import RECIPE, MergeStudy
from evomerge_optuna.study.trials import Trials


def add_drawn_trial(merge_study: MergeStudy, trials: Trials, lease: Lease) -> optuna.Trial:
    """A new running trial with its parameters and recipe, signed; for the holder of the study.

    The study's sampler draws it.

    Args:
        trials: those of the study as they are now.
    """
    study, sampler = merge_study.study, merge_study.study.sampler
    ranges: dict[str, BaseDistribution] = {
        n: FloatDistribution(r.low, r.high) for n, r in merge_study.space.ranges().items()
    }
    recorder = _Recorder(study._storage, trials)
    recorded = optuna.load_study(study_name=merge_study.name, storage=cast(Any, recorder))
    draft = create_trial(state=TrialState.RUNNING)
    draft.number = trials.next_position
    # As optuna.Trial.suggest_float does it: what is not drawn together is drawn one by one. Not by
    # infer_relative_search_space, which compares all distributions of all trials: each has ours.
    known = {name: ranges[name] for name in sorted(ranges) if not ranges[name].single()}
    is_first = not trials.of(TrialState.COMPLETE)
    together = sampler.sample_relative(recorded, draft, {} if is_first else known)
    params = {
        name: together[name]
        if name in together
        else sampler.sample_independent(recorded, draft, name, distribution)
        for name, distribution in ranges.items()
    }
    recipe = merge_study.space.recipe(params)
    # Not study.add_trial, which does not tell the trial's id.
    trial_id = study._storage.create_new_trial(
        study._study_id,
        create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=ranges,
            user_attrs={WORKER: asdict(lease), RECIPE: recipe.model_dump(mode="json")},
            system_attrs=recorder.attributes,
        ),
    )
    return optuna.Trial(study, trial_id)


def ask_waiting(merge_study: MergeStudy, trials: Trials) -> optuna.Trial:
    """The first trial that waits, running from now on; for the holder of the study.

    The study's sampler draws the parameters that it was not given, without a look at foreign ones.
    """
    study = merge_study.study
    if not trials.foreign:
        return study.ask()
    own = optuna.load_study(
        study_name=merge_study.name,
        storage=cast(Any, _OwnTrials(study._storage, trials)),
        sampler=study.sampler,
    )
    return own.ask()


class _OwnTrials:
    """A storage to a sampler, which has no foreign trials."""

    def __init__(self, storage: optuna.storages.BaseStorage, trials: Trials) -> None:
        self._storage = storage
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        assert not deepcopy  # no sampler of ours asks for it
        return [t for t in self._trials.own if states is None or t.state in states]


class _Recorder(_OwnTrials):
    """The same, which writes attributes of the trial that is not stored yet."""

    def __init__(self, storage: optuna.storages.BaseStorage, trials: Trials) -> None:
        super().__init__(storage, trials)
        self.attributes: dict[str, Any] = {}

    def set_trial_system_attr(self, _: int, key: str, value: Any) -> None:
        self.attributes[key] = value
