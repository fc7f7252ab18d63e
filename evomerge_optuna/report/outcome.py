"""Lines about a run: how far the study is, what came of it, how to continue."""

import shlex

from evomerge_optuna.evaluation.user_code import code_of
from evomerge_optuna.results.chosen_trial import is_race_open
from evomerge_optuna.study.schema import ERROR
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

_FEW = 10  # trials without a better one, which are nothing to speak of


def run_command(merge_study: MergeStudy, *options: str) -> str:
    """The command that runs a stored study; it has to allow the code that the spec names."""
    code = ["--allow-code"] if code_of(merge_study.spec) else []
    return shlex.join(["evomerge-optuna", "study", "run", merge_study.name, *options, *code])


def best_so_far(trials: Trials) -> str:
    """The best score of the first objective, and its trial."""
    best = trials.best
    if best is None:
        return "no score yet"
    said = f"best {trials.objectives[0].target} {best.values[0]:.4g} (trial {best.number})"
    return said if trials.since_better < _FEW else f"{said}, no better in {trials.since_better}"


def outcome_line(
    study: str, trials: Trials, wanted: int, command: str, *, converged: str = ""
) -> str:
    """Says in one line what came of a run.

    Args:
        study: its name.
        wanted: trials in all.
        command: the one that continues the study.
        converged: the option or key by which the run stopped since so many trials were no better;
            '' where it did not.
    """
    failed = sum(ERROR in trial.user_attrs for trial in trials.counted)
    parts = [f"{study}: {trials.finished} trials", best_so_far(trials)]
    if failed:
        name = shlex.quote(study)
        parts.append(f"{failed} failed (evomerge-optuna study show {name} --json)")
    if trials.finished < wanted and converged:
        parts.append(f"it stops here ({converged}); go on with: {command} --no-better-in 0")
    elif trials.finished < wanted:
        parts.append(f"the time is up; continue with: {command}")
    return "; ".join(parts)


def choice_remark(merge_study: MergeStudy, which: str) -> str:
    """What `study test` may change about the choice of the best trial; '' if nothing.

    Args:
        which: trial was asked for, as in `--trial`.
    """
    if which != "best" or not is_race_open(merge_study):
        return ""
    return (
        "This trial is the best on search. To choose among the best few by their dev scores, too, "
        f"run: evomerge-optuna study test {merge_study.quoted_name}"
    )
