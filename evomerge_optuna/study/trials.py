"""A study's trials as they were when they were read: many questions, one look at the database."""

import copy
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.spec import Objective
from evomerge_optuna.store.lock import Lease
from evomerge_optuna.study.schema import BASELINE, REPEATS, STOPPED, WORKER


@dataclass(frozen=True)
class Trials:
    """All trials of a study, by number, and what is to be known of them.

    `foreign` are the numbers of those that something else added; they count for nothing.
    """

    everything: Sequence[FrozenTrial]
    objectives: Sequence[Objective]
    foreign: Set[int] = frozenset()

    @cached_property
    def own(self) -> Sequence[FrozenTrial]:
        """All but the foreign ones."""
        if not self.foreign:
            return self.everything
        return [trial for trial in self.everything if trial.number not in self.foreign]

    def of(self, state: TrialState) -> list[FrozenTrial]:
        """Those of them in this state."""
        return self._by_state[state]

    @cached_property
    def repeated(self) -> set[int]:
        """Numbers of the trials that were cut short and queued again."""
        return set(self._repeats.values())

    @cached_property
    def counted(self) -> list[FrozenTrial]:
        """All of them but those that others repeat."""
        return [trial for trial in self.own if trial.number not in self.repeated]

    @property
    def finished(self) -> int:
        """How many count as finished: scored, or failed by their own fault."""
        done = len(self.of(TrialState.COMPLETE)) + len(self.of(TrialState.FAIL))
        return done - sum(self.everything[number].state.is_finished() for number in self.repeated)

    @cached_property
    def rankable(self) -> list[FrozenTrial]:
        """Trials that keep the constraints and were scored on all problems, by number."""
        return [trial for trial in self._scored if _is_rankable(trial)]

    @cached_property
    def ranked(self) -> list[FrozenTrial]:
        """The rankable trials, the best first: by the first objective, the next, the number."""
        return sorted(self.rankable, key=self._rank)

    @property
    def best(self) -> FrozenTrial | None:
        """The first of the ranked; None before there is one."""
        return min(self.rankable, key=self._rank, default=None)

    @property
    def stopped(self) -> list[FrozenTrial]:
        """Trials that were stopped early; `STOPPED` says after how many problems."""
        return [trial for trial in self.counted if STOPPED in trial.user_attrs]

    @property
    def baselines(self) -> list[FrozenTrial]:
        """Scored trials of given parameters; their attribute `BASELINE` says what each is."""
        return [trial for trial in self._scored if BASELINE in trial.user_attrs]

    @property
    def front(self) -> list[FrozenTrial]:
        """The Pareto front, ranked, of equals the first; of one objective the best trial alone."""
        front: list[FrozenTrial] = []
        for trial in self.ranked:  # a trial is beaten, if at all, by one before it
            if not any(self.reaches(other, trial.values) for other in front):
                front.append(trial)
        return front

    @cached_property
    def since_better(self) -> int:
        """Finished trials since the last that was better than all before it.

        Of several objectives: since the last that came onto the Pareto front, and so made the
        hypervolume larger. Before any trial is scored: 0. Trials that the study began with are
        none of them, for nothing has searched for those.
        """
        if not self.front:
            return 0
        last = max(trial.number for trial in self.front)
        later = (trial for trial in self.counted if trial.number > last)
        return sum(t.state.is_finished() and BASELINE not in t.user_attrs for t in later)

    def have_converged(self, no_better_in: int | None) -> bool:
        """Was nothing better in so many trials, and is none queued? Never for None."""
        if no_better_in is None or self.of(TrialState.WAITING):
            return False
        return self.since_better >= no_better_in

    def have_reached(self, values: Sequence[float]) -> bool:
        """Is a rankable trial at least as good as these values in every objective?"""
        latest_first = reversed(self._scored)  # which are good: soon found
        return any(self.reaches(trial, values) and _is_rankable(trial) for trial in latest_first)

    def reaches(self, trial: FrozenTrial, values: Sequence[float]) -> bool:
        """Is the trial at least as good as these values in every objective?"""
        both = zip(self.objectives, trial.values, values, strict=True)
        return all(o.sign * own >= o.sign * value for o, own, value in both)

    @property
    def uninterrupted(self) -> list[FrozenTrial]:
        """Its own trials as they would be had none been cut short: numbered by their positions."""
        found = sorted(self.counted, key=self._original)
        return [_numbered(trial, position) for position, trial in enumerate(found)]

    def position(self, trial: FrozenTrial) -> int:
        """A trial's place in the study (0 for the first): a trial and its repeats have the same."""
        original = self._original(trial)
        return sum(t.number < original and t.number not in self._repeats for t in self.own)

    def _original(self, trial: FrozenTrial) -> int:
        """The number of the trial that a trial repeats in the end, or its own."""
        original = trial.number
        while original in self._repeats:
            original = self._repeats[original]
        return original

    @property
    def next_position(self) -> int:
        """The position of a trial that is not there yet."""
        return len(self.own) - len(self._repeats)

    @cached_property
    def _by_state(self) -> dict[TrialState, list[FrozenTrial]]:
        found: dict[TrialState, list[FrozenTrial]] = {state: [] for state in TrialState}
        for trial in self.own:
            found[trial.state].append(trial)
        return found

    @cached_property
    def _repeats(self) -> dict[int, int]:
        """By a trial's number that of the one it repeats."""
        found = {t.number: t.user_attrs[REPEATS] for t in self.own if REPEATS in t.user_attrs}
        # Of a trial that was copied from another study it is a number there.
        return {
            number: repeated
            for number, repeated in found.items()
            if isinstance(repeated, int) and 0 <= repeated < number and repeated not in self.foreign
        }

    @cached_property
    def _scored(self) -> list[FrozenTrial]:
        scored = self.of(TrialState.COMPLETE)
        if any(self.everything[n].state is TrialState.COMPLETE for n in self.repeated):
            return [trial for trial in scored if trial.number not in self.repeated]
        return scored

    def _rank(self, trial: FrozenTrial) -> tuple[float, ...]:
        losses = (-o.sign * v for o, v in zip(self.objectives, trial.values, strict=True))
        return (*losses, trial.number)


def _numbered(trial: FrozenTrial, number: int) -> FrozenTrial:
    if trial.number == number:
        return trial
    found = copy.copy(trial)
    found.number = number
    return found


def _is_rankable(trial: FrozenTrial) -> bool:
    return STOPPED not in trial.user_attrs and is_feasible(trial)


def is_feasible(trial: FrozenTrial | optuna.Trial) -> bool:
    """Does a scored trial keep its study's constraints?"""
    return all(violation <= 0 for violation in trial.constraints.values())


def lease_of(trial: FrozenTrial) -> Lease | None:
    """The lease of the worker that took a trial; None where it was stopped before it signed."""
    try:
        return Lease(**trial.user_attrs[WORKER])
    except (KeyError, TypeError):  # not signed, or by somebody else
        return None
