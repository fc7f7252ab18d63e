"""Drawing a trial's parameters before the trial is stored, so that it is stored whole.

Optuna stores a trial, then each parameter as it is suggested, a transaction each; the attributes in
which samplers keep their state are as many more. Here all of that is one transaction.
"""

from dataclasses import asdict
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from evomerge_optuna.study.lock import WORKER, Lease
from evomerge_optuna.study.requeue import next_position
from evomerge_optuna.study.samplers import make_sampler
from evomerge_optuna.study.studies import MergeStudy


def add_drawn_trial(merge_study: MergeStudy, lease: Lease) -> optuna.Trial:
    """A new running trial with all its parameters, signed; for the holder of the study."""
    study = merge_study.study
    position = next_position(merge_study)
    sampler = make_sampler(merge_study.spec.sampler, position, merge_study.start())
    ranges: dict[str, BaseDistribution] = {
        n: FloatDistribution(r.low, r.high) for n, r in merge_study.space.ranges().items()
    }
    recorder = _Recorder(study._storage)
    recorded = optuna.load_study(study_name=study.study_name, storage=cast(Any, recorder))
    draft = create_trial(state=TrialState.RUNNING)
    draft.number = position
    # As optuna.Trial.suggest_float does it: what is not drawn together is drawn one by one.
    together = sampler.sample_relative(
        recorded, draft, sampler.infer_relative_search_space(recorded, draft)
    )
    params = {
        name: together[name]
        if name in together
        else sampler.sample_independent(recorded, draft, name, distribution)
        for name, distribution in ranges.items()
    }
    study.add_trial(
        create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions=ranges,
            user_attrs={WORKER: asdict(lease)},
            system_attrs=recorder.attributes,
        )
    )
    added = study.get_trials(deepcopy=False)[-1]
    return optuna.Trial(study, added._trial_id)


class _Recorder:
    """A storage to a sampler, which writes attributes of the trial that is not stored yet."""

    def __init__(self, storage: optuna.storages.BaseStorage) -> None:
        self._storage = storage
        self.attributes: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def set_trial_system_attr(self, _: int, key: str, value: Any) -> None:
        self.attributes[key] = value
