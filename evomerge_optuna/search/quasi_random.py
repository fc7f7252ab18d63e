"""Points of a Sobol sequence: they fill the space more evenly than random ones."""

import optuna

from evomerge_optuna.search.samplers import Positioned, Settings
from evomerge_optuna.store.optuna_internals import OpenQMCSampler
from evomerge_optuna.study.schema import BASELINE


class PositionedQMCSampler(Positioned, OpenQMCSampler):
    """Optuna's QMC sampler, whose point depends on a trial's position alone.

    The sequence is scrambled by the spec's seed, so that each seed has other points. Trials with
    which the study began take none of them, since a sequence without its first points is less even.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(scramble=True, seed=settings.seed, warn_independent_sampling=False)
        self._position = settings.position

    def place(self, study: optuna.Study) -> int:
        trials = study.get_trials(deepcopy=False)  # none of which another repeats
        return self._position - sum(BASELINE in trial.user_attrs for trial in trials)
