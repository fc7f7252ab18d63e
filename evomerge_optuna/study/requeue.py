"""What becomes of a trial that was cut short: a waiting trial repeats it, and it counts no more."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState, create_trial

from evomerge_optuna.study.studies import BASELINE, REPEATS, MergeStudy

INTERRUPTED = "interrupted"  # trial attribute, for the reader: why it was cut short


def requeue_running(merge_study: MergeStudy, reason: str) -> int:
    """Queues again every running trial and marks it failed; returns how many.

    For the process that holds the study (see `lock.hold`), at a time when it runs no trial itself:
    what is running then belongs to a worker that is gone.
    """
    study = merge_study.study
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    requeue(merge_study, running)
    for trial in running:
        merge_study.store.rdb.set_trial_user_attr(trial._trial_id, INTERRUPTED, reason)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(running)


def requeue(merge_study: MergeStudy, trials: Sequence[FrozenTrial]) -> None:
    """Adds a waiting repeat of each trial that has none yet.

    The repeat keeps fixed parameters. The others are chosen anew, and chosen alike, since the
    sampler depends on finished trials and on the position alone.
    """
    repeated = merge_study.repeated()
    for trial in trials:
        if trial.number not in repeated:
            fixed = {k: v for k, v in trial.system_attrs.items() if k == "fixed_params"}
            baseline = {k: v for k, v in trial.user_attrs.items() if k == BASELINE}
            merge_study.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    system_attrs=fixed,
                    user_attrs={**baseline, REPEATS: trial.number},
                )
            )


def position(merge_study: MergeStudy, number: int) -> int:
    """A trial's place in the study: a trial and its repeats count once."""
    return sum(trial.number < number for trial in merge_study.trials())
