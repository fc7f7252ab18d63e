"""Drawing a trial's parameters before the trial is stored, so that it is stored whole.

Optuna stores a trial, then each parameter as it is suggested, a transaction each; the attributes in
which samplers keep their state are as many more. Here all of that is one transaction, and the
sampler looks at trials that were read before rather than reading them several times over.
"""

import copy
from dataclasses import asdict

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.spaces.space import distributions
from evomerge_optuna.store.lock import Lease
from evomerge_optuna.store.optuna_internals import ENQUEUED, add_running_trial, with_trials
from evomerge_optuna.study.schema import BASELINE, RECIPE, REPEATS, WORKER
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials


def add_drawn_trial(merge_study: MergeStudy, trials: Trials, lease: Lease) -> optuna.Trial:
    """A new running trial with its parameters and recipe, signed; for the holder of the study.

    The study's sampler draws it.

    Args:
        trials: the study's trials as they are now.
    """
    study, sampler = merge_study.study, merge_study.study.sampler
    ranges = distributions(merge_study.space)
    written: dict[str, object] = {}
    recorded = with_trials(study, trials.uninterrupted, written)
    draft = create_trial(state=TrialState.RUNNING)
    draft.number = trials.next_position
    draft.system_attrs = written  # type: ignore[assignment]
    # As optuna.Trial.suggest_float does it: what is not drawn together is drawn one by one.
    if merge_study.spec.sampler.class_ is None:
        # Not by infer_relative_search_space, which compares all trials: each has our distributions.
        known = {name: ranges[name] for name in sorted(ranges) if not ranges[name].single()}
    else:
        sampler.before_trial(recorded, draft)
        known = sampler.infer_relative_search_space(recorded, draft)
    together = sampler.sample_relative(recorded, draft, known)
    params = {
        name: together[name]
        if name in together
        else sampler.sample_independent(recorded, draft, name, distribution)
        for name, distribution in ranges.items()
    }
    recipe = merge_study.space.recipe(params)
    drawn = create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=ranges,
        user_attrs={WORKER: asdict(lease), RECIPE: recipe.model_dump(mode="json")},
        system_attrs=written,
    )
    return add_running_trial(study, drawn)


def start_waiting_trial(merge_study: MergeStudy, trials: Trials) -> optuna.Trial:
    """The first trial that waits, running from now on; for the holder of the study.

    The study's sampler draws the parameters that it was not given, without a look at foreign
    trials.
    """
    study, waiting = merge_study.study, trials.of(TrialState.WAITING)[0]
    seen = with_trials(study, trials.own) if trials.foreign else copy.copy(study)
    is_ours = BASELINE in waiting.user_attrs or REPEATS in waiting.user_attrs
    if is_ours and _is_whole(waiting, merge_study):
        seen.sampler = RandomSampler()  # which draws nothing together, nor counts what is given
    return seen.ask()


def _is_whole(trial: FrozenTrial, merge_study: MergeStudy) -> bool:
    """Are all parameters of a waiting trial given?"""
    return {*trial.system_attrs.get(ENQUEUED, {})} == {*merge_study.space.ranges()}
