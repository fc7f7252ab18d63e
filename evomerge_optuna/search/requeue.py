"""What becomes of a trial that was cut short: a waiting trial repeats it, and it counts no more."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.errors import UsageError
from evomerge_optuna.search.deaths import Place, deaths_of, is_to_blame
from evomerge_optuna.store.lock import hold
from evomerge_optuna.store.optuna_internals import ENQUEUED, sampler_state, set_trial_attribute
from evomerge_optuna.study.schema import (
    BASELINE,
    DIED_AT,
    ERROR,
    GIVEN_UP,
    INTERRUPTED,
    RECIPE,
    REPEATS,
)
from evomerge_optuna.study.studies import MergeStudy


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

    One that is to blame for that, see `is_to_blame`, fails for good.
    """
    dead = {trial.number for trial in _running(merge_study) if is_dead(trial)}
    if not dead:
        return
    # Read again: one that was running when first read may have been finished before its worker
    # ended. Now that the worker is dead nobody can finish it any more.
    for trial in [trial for trial in _running(merge_study) if trial.number in dead]:
        died_at = deaths_of(trial)
        if is_to_blame(died_at, merge_study.spec.evaluation.max_retries):
            _give_up(merge_study, trial, len(died_at))
        else:
            requeue(merge_study, [trial], died_at={trial.number: died_at})
            _fail(merge_study, trial, INTERRUPTED, "its worker died")


def retry(merge_study: MergeStudy, number: int | None = None) -> list[int]:
    """Queues a failed trial again, or all that were given up for their workers died.

    Returns:
        Their numbers.

    Raises:
        UsageError: there is none, or the trial has not failed, or is being tried again.
    """
    with hold(merge_study.store.locks, merge_study.name):
        trials = merge_study.read()
        failed = [t for t in trials.of(TrialState.FAIL) if t.number not in trials.repeated]
        if number is None:
            chosen = [trial for trial in failed if GIVEN_UP in trial.user_attrs]
        else:
            chosen = [trial for trial in failed if trial.number == number]
        if not chosen:
            there_are = len(trials.everything)
            raise UsageError(_why_none(merge_study.name, there_are, failed, number))
        requeue(merge_study, chosen, died_at={trial.number: [] for trial in chosen})
    return [trial.number for trial in chosen]


def requeue(
    merge_study: MergeStudy,
    trials: Sequence[FrozenTrial],
    *,
    died_at: Mapping[int, Sequence[Place]] | None = None,
    anew: bool = False,
) -> None:
    """Adds a waiting repeat of each trial that has none yet.

    The repeat has the same parameters and belongs to the same generation. Where the trial was cut
    short before it had them all, they are chosen anew, by a single worker chosen alike: the sampler
    depends on finished trials and on the position alone.

    Args:
        died_at: where workers died, by the trial's number; as far as it is known unless given.
        anew: choose all parameters anew, for the trials before these have to be scored first.
    """
    repeated = merge_study.read().repeated
    for trial in trials:
        if trial.number in repeated:
            continue
        kept = {k: v for k, v in trial.system_attrs.items() if k == ENQUEUED}
        if not anew and trial.params.keys() == merge_study.space.ranges().keys():
            kept = {ENQUEUED: trial.params, **sampler_state(trial)}
        user_attrs = {k: v for k, v in trial.user_attrs.items() if k in (BASELINE, DIED_AT)}
        if BASELINE in user_attrs and RECIPE in trial.user_attrs:
            user_attrs[RECIPE] = trial.user_attrs[RECIPE]  # a source model's is not in the space
        user_attrs[REPEATS] = trial.number
        if died_at is not None:
            user_attrs[DIED_AT] = died_at[trial.number]
        if not user_attrs.get(DIED_AT):
            user_attrs.pop(DIED_AT, None)
        merge_study.study.add_trial(
            create_trial(state=TrialState.WAITING, system_attrs=kept, user_attrs=user_attrs)
        )


def _running(merge_study: MergeStudy) -> list[FrozenTrial]:
    return merge_study.read().of(TrialState.RUNNING)


def _give_up(merge_study: MergeStudy, trial: FrozenTrial, deaths: int) -> None:
    name = shlex.quote(merge_study.name)
    with suppress(optuna.exceptions.UpdateFinishedTrialError):
        set_trial_attribute(merge_study.study, trial, GIVEN_UP, deaths)
    _fail(
        merge_study,
        trial,
        ERROR,
        f"{deaths} workers died on it (out of memory?); it is not tried again, unless by "
        f"evomerge-optuna study retry {name} {trial.number}",
    )


def _fail(merge_study: MergeStudy, trial: FrozenTrial, attribute: str, reason: str) -> None:
    # Its worker may live, and have finished it since: it had lost its lease for a moment.
    with suppress(optuna.exceptions.UpdateFinishedTrialError, ValueError):
        set_trial_attribute(merge_study.study, trial, attribute, reason)
        merge_study.study.tell(trial.number, state=TrialState.FAIL)


def _why_none(name: str, there_are: int, failed: Sequence[FrozenTrial], number: int | None) -> str:
    if number is None:
        what = "no trial was given up"
    elif number < there_are:
        what = f"trial {number} has not failed for good"
    else:
        what = f"there is no trial {number}"
    numbers = ", ".join(str(trial.number) for trial in failed)
    others = f"trials that failed are {numbers}" if failed else "no trial has failed for good"
    return f"study '{name}': {what}; {others}"
