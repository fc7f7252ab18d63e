"""Whether a search still finds something, and whether it found more than what was given to it."""

from optuna.trial import FrozenTrial

from evomerge_optuna.evaluation.scores import drop
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import BASELINE
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

PATIENCE = 40  # trials; see benchmarks/README.md
_UNLIKELY = 0.05


def convergence_remark(merge_study: MergeStudy, trials: Trials) -> str:
    """Says that a search has converged, and where to nothing new that a restart is worth it."""
    stop = merge_study.spec.stop
    patience = PATIENCE if stop is None else stop.no_better_in
    if not trials.have_converged(patience):
        return ""
    several = len(trials.objectives) > 1
    what = "came onto the Pareto front" if several else "was better than the best"
    said = f"None of the last {trials.since_better} trials {what}: the search has converged."
    given = None if several else _not_surpassed(merge_study, trials)
    if given is None:
        return said
    name = given.user_attrs[BASELINE]
    return (
        f"{said} Nothing that it drew is better than trial {given.number} ({name}) by more than "
        "noise: it may sit in a basin, and a new study with another seed or sampler is worth a try."
    )


def _not_surpassed(merge_study: MergeStudy, trials: Trials) -> FrozenTrial | None:
    """The best of the trials that were given, if no drawn one is better by more than noise."""
    objective = merge_study.spec.objective
    if objective.is_cost:
        return None
    ranked = trials.ranked
    given = next((trial for trial in ranked if BASELINE in trial.user_attrs), None)
    drawn = next((trial for trial in ranked if BASELINE not in trial.user_attrs), None)
    if given is None or drawn is None:
        return given
    target = objective.target
    best, known = (result_of(trial).scores[target] for trial in (drawn, given))
    higher, lower = (best, known) if objective.sign > 0 else (known, best)
    kind = merge_study.spec.metric(target).kind
    return given if drop(kind, higher, lower) >= _UNLIKELY else None
