"""What becomes of a trial that was cut short: a waiting trial repeats it, and it counts no more."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.study.samplers import sampled_attributes
from evomerge_optuna.study.studies import ERROR, RECIPE, MergeStudy
from evomerge_optuna.study.trials import BASELINE, REPEATS

# Trial attributes.
INTERRUPTED = "interrupted"  # for the reader: why it was cut short
DEATHS = "deaths"  # how many workers died on the trials that this one repeats


def requeue_running(
    merge_study: MergeStudy, is_cut_short: Callable[[FrozenTrial], bool], reason: str
) -> None:
    """Queues these running trials again and marks them failed; for the holder of the study."""
    cut_short = [trial for trial in _running(merge_study) if is_cut_short(trial)]
    requeue(merge_study, cut_short)
    for trial in cut_short:
        _fail(merge_study, trial, INTERRUPTED, reason)


def requeue_dead(merge_study: MergeStudy, is_dead: Callable[[FrozenTrial], bool]) -> None:
    """Queues the trials of dead workers again; for the holder of the study.

    One that more than `max_retries` workers died on fails for good: it is likely what kills them.
    """
    dead = {trial.number for trial in _running(merge_study) if is_dead(trial)}
    if not dead:
        return
    # Read again: one that was running when first read may have been finished before its worker
    # ended. Now that the worker is dead nobody can finish it any more.
    for trial in [trial for trial in _running(merge_study) if trial.number in dead]:
        deaths = trial.user_attrs.get(DEATHS, 0) + 1
        if deaths > merge_study.spec.evaluation.max_retries:
            reason = f"{deaths} workers died on it (out of memory?); it is not tried again"
            _fail(merge_study, trial, ERROR, reason)
        else:
            requeue(merge_study, [trial], deaths=deaths)
            _fail(merge_study, trial, INTERRUPTED, "its worker died")


def requeue(
    merge_study: MergeStudy, trials: Sequence[FrozenTrial], *, deaths: int = 0, anew: bool = False
) -> None:
    """Adds a waiting repeat of each trial that has none yet.

    The repeat has the same parameters and belongs to the same generation. Where the trial was cut
    short before it had them all, they are chosen anew, by a single worker chosen alike: the sampler
    depends on finished trials and on the position alone.

    Args:
        deaths: see `DEATHS`.
        anew: choose all parameters anew, for the trials before these have to be scored first.
    """
    repeated = merge_study.read().repeated
    for trial in trials:
        if trial.number in repeated:
            continue
        kept = {k: v for k, v in trial.system_attrs.items() if k == "fixed_params"}
        if not anew and trial.params.keys() == merge_study.space.ranges().keys():
            kept = {"fixed_params": trial.params, **sampled_attributes(trial)}
        user_attrs = {k: v for k, v in trial.user_attrs.items() if k in (BASELINE, DEATHS)}
        if BASELINE in user_attrs and RECIPE in trial.user_attrs:
            user_attrs[RECIPE] = trial.user_attrs[RECIPE]  # a source model's is not in the space
        user_attrs[REPEATS] = trial.number
        if deaths:
            user_attrs[DEATHS] = deaths
        merge_study.study.add_trial(
            create_trial(state=TrialState.WAITING, system_attrs=kept, user_attrs=user_attrs)
        )


def _running(merge_study: MergeStudy) -> list[FrozenTrial]:
    return merge_study.read().of(TrialState.RUNNING)


def _fail(merge_study: MergeStudy, trial: FrozenTrial, attribute: str, reason: str) -> None:
    # Its worker may live, and have finished it since: it had lost its lease for a moment.
    with suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
        merge_study.store.rdb.set_trial_user_attr(trial._trial_id, attribute, reason)
        merge_study.study.tell(trial.number, state=TrialState.FAIL)
