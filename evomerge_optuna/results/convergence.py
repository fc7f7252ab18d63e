"""Whether a search still finds something, and whether it found more than what was given to it."""

from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

PATIENCE = 80  # trials; searches found much after 40, see benchmarks/README.md


def convergence_remark(merge_study: MergeStudy, trials: Trials) -> str:
    """Says that a search finds nothing better, and that its best is what it began with; or ''."""
    stop = merge_study.spec.stop
    patience = PATIENCE if stop is None else stop.no_better_in
    if not trials.have_converged(patience):
        return ""
    several = len(trials.objectives) > 1
    what = "came onto the Pareto front" if several else "was better than the best before them"
    said = f"None of the last {trials.since_better} trials {what}: the search may have converged."
    best = trials.best
    if several or best is None or BASELINE not in best.user_attrs:
        return said
    return (
        f"{said} The best is still trial {best.number} ({best.user_attrs[BASELINE]}), with which "
        "the study began: more trials, or a new study with another seed or sampler, may find more."
    )
