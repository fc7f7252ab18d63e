"""Drawing a trial's parameters before the trial is stored, so that it is stored whole.

Optuna stores a trial, then each parameter as it is suggested, a transaction each; the attributes in
which samplers keep their state are as many more. Here all of that is one transaction, and the
sampler looks at trials that were read before rather than reading them several times over.
"""

from dataclasses import asdict

import optuna
from optuna.trial import TrialState, create_trial

from evomerge_optuna.spaces.space import distributions
from evomerge_optuna.store.lock import Lease
from evomerge_optuna.store.optuna_internals import add_running_trial, with_trials
from evomerge_optuna.study.schema import RECIPE, WORKER
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
    recorded = with_trials(study, trials.own, written)
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

    The study's sampler draws the parameters that it was not given, without a look at foreign ones.
    """
    study = merge_study.study
    if not trials.foreign:
        return study.ask()
    return with_trials(study, trials.own).ask()
