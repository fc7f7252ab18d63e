"""The objective: one trial from suggested parameters to stored scores."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.engines import candidate_builder
from evomerge_optuna.engines.base import Engine, JoiningBuilder
from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.person import person
from evomerge_optuna.explain import kind_and_message
from evomerge_optuna.recipes.recipe import Recipe, parse_recipe
from evomerge_optuna.search.deaths import begin, counted_passes
from evomerge_optuna.search.joined import Asked, candidates_at_once, score_joined
from evomerge_optuna.search.racing import Race
from evomerge_optuna.search.scored import Scored, build_and_score
from evomerge_optuna.search.trial_page import TrialPage
from evomerge_optuna.search.worker import Taken
from evomerge_optuna.study.answers import keep_answers
from evomerge_optuna.study.foreign import check_enqueued
from evomerge_optuna.study.quarters import dev_blocks, parts_of
from evomerge_optuna.study.result import Result, result_of, store_result
from evomerge_optuna.study.schema import BASELINE, RECIPE, RESULT, SAME_AS, STOPPED
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials, is_feasible


class Objective:
    """Builds and scores the recipe of a trial, and records both with it."""

    def __init__(
        self, merge_study: MergeStudy, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._study = merge_study
        self._say = say
        spec, space = merge_study.spec, merge_study.space
        self.at_once = candidates_at_once(spec, len(space.ranges()))
        self._builder = candidate_builder(spec.evaluation.with_candidates(self.at_once), say)
        self._evaluator = Evaluator(merge_study.spec, merge_study.day, merge_study.tasks)
        racing = merge_study.spec.racing
        self._recipes: dict[int, str] = {}  # digests, by the trial's number
        self._race = None if racing is None else Race(merge_study, racing, self._evaluator)
        self._remarked: set[str] = set()  # tasks
        self._ahead: dict[int, Scored] = {}  # by the numbers of the trials that are run next
        self._asks_singly = False

    def load(self) -> None:
        """Reads models and data, which a trial would have to wait for.

        Raises:
            CandidateError, SpecError, OSError: some cannot be read.
        """
        space = self._study.space
        self._builder.load(space.recipe(space.baseline()), space.layers_of())
        self._evaluator.load("search")

    def __call__(self, trial: optuna.Trial, before: Trials) -> list[float]:
        """The objectives' values.

        Args:
            before: the study's trials as they were when this one was taken.

        Raises:
            CandidateError: the candidate cannot be built or scored.
        """
        if (scored := self._ahead.pop(trial.number, None)) is None:
            recipe = self._recipe(trial, before)
            seen = before if self.at_once == 1 else self._study.read()  # with those of its batch
            if (alike := self._scored_alike(recipe, seen)) is not None:
                return self._repeat(trial, alike)
            begin(trial)
            scored = build_and_score(recipe, self._builder, partial(self._score, trial, before))
        self._tell_remarks(trial, scored.evaluation)
        result = scored.result
        values = self._values(trial, result)
        start = time.perf_counter()
        # Other trials have ended since; but only what surpassed those before may surpass all.
        is_best = self._is_best(trial, values, before) and self._is_best(
            trial, values, self._study.read()
        )
        if is_best and len(values) == 1:
            result = self._confirm(trial, scored)
        confirm = round(time.perf_counter() - start, 4)
        store_result(trial, replace(result, seconds={**result.seconds, "confirm": confirm}))
        if is_best or self._is_shown(trial):
            keep_answers(self._study, trial, scored.evaluation, self._say)
        return values

    def ask_ahead(self, batch: Sequence[Taken]) -> None:
        """Scores the candidates of these trials at once, before each of the trials is run.

        A candidate that fails is left to its trial, which tells why; and so are all of them where
        they cannot be asked at once.
        """
        self._ahead = {}
        if not isinstance(self._builder, JoiningBuilder) or len(batch) < 2:
            return
        try:
            asked: dict[str, Asked] = {}  # of equal candidates the first, which the others repeat
            for trial, before in ((taken.trial, taken.before) for taken in batch):
                with suppress(CandidateError):
                    recipe = self._recipe(trial, before)
                    if self._scored_alike(recipe, before) is None:
                        asked.setdefault(recipe.digest(), Asked(trial, before.best, recipe))
            together = list(asked.values())
            self._ahead = score_joined(together, self._builder, self._evaluator, self._race)
        except Exception as error:  # whatever it is, a trial meets it again
            if not self._asks_singly:
                reason = str(error) if isinstance(error, EvomergeError) else kind_and_message(error)
                self._say(f"these candidates are asked one by one: {reason}")
            self._asks_singly = True

    def _recipe(self, trial: optuna.Trial, before: Trials) -> Recipe:
        if trial.number < len(before.everything):  # it was queued
            check_enqueued(before.everything[trial.number], self._study.space.ranges())
        recipe = self._study.space.suggest(trial)
        if RECIPE in trial.user_attrs:  # it was drawn, or queued as a source model
            return parse_recipe(trial.user_attrs[RECIPE])
        trial.set_user_attr(RECIPE, recipe.model_dump(mode="json"))
        return recipe

    def _scored_alike(self, recipe: Recipe, trials: Trials) -> FrozenTrial | None:
        """A scored trial of the same recipe: the same weights, so the same scores."""
        scored = trials.of(TrialState.COMPLETE)
        for trial in scored:
            if trial.number not in self._recipes and RESULT in trial.user_attrs:
                self._recipes[trial.number] = trial.user_attrs[RESULT]["recipe"]
        digest = recipe.digest()
        return next((t for t in scored if self._recipes.get(t.number) == digest), None)

    def _score(self, trial: optuna.Trial, before: Trials, engine: Engine) -> Evaluation:
        page = TrialPage(self._study, trial, before, self._say)
        with counted_passes(trial, engine, "search"), person(page.ask):
            if self._race is not None:
                return self._race.score(trial, engine, before.best)
            return self._evaluator.evaluate(engine, "search")

    def _repeat(self, trial: optuna.Trial, alike: FrozenTrial) -> list[float]:
        """Gives the trial all that was found of its recipe before; of a stopped one no more."""
        result = replace(result_of(alike), seconds={}, dev=None, dev_quarters=[])
        trial.set_user_attr(SAME_AS, alike.number)
        if STOPPED in alike.user_attrs:
            trial.set_user_attr(STOPPED, alike.user_attrs[STOPPED])
        for block, score in alike.intermediate_values.items():
            trial.report(score, block)
        store_result(trial, result)
        return self._values(trial, result)

    def _values(self, trial: optuna.Trial, result: Result) -> list[float]:
        """What the measures are worth; sets the constraints, too."""
        spec = self._study.spec
        for constraint in spec.constraints:
            violation = constraint.violation(result.measures[constraint.target])
            trial.set_constraint(str(constraint), violation)
        return [result.measures[objective.target] for objective in spec.objectives]

    def _is_best(self, trial: optuna.Trial, values: Sequence[float], others: Trials) -> bool:
        """Is it scored on all problems and feasible, and no other as good in all objectives?"""
        if STOPPED in trial.user_attrs or others.have_reached(values):
            return False
        return not self._study.spec.constraints or is_feasible(trial)

    def _is_shown(self, trial: optuna.Trial) -> bool:
        """Are its pictures wanted beside those of the best?"""
        drawn = any(runner.asks == "images" for runner in self._study.tasks.values())
        return drawn and BASELINE in trial.user_attrs

    def _confirm(self, trial: optuna.Trial, scored: Scored) -> Result:
        """With its scores on dev, which the search does not use: it is likely a finalist."""
        study, result = self._study, scored.result
        if not study.spec.has_dev:
            return result
        try:
            with counted_passes(trial, scored.engine, "dev"):
                evaluation = self._evaluator.evaluate(scored.engine, "dev")
            blocks = dev_blocks(study.spec, study.tasks)
            parts = self._evaluator.parts(evaluation, blocks)
        except CandidateError as error:  # no reason to lose its score on search
            self._say(f"a new best candidate cannot be scored on dev: {error}")
            return result
        keep_answers(study, trial, evaluation, self._say)
        quarters = parts_of(study.spec, parts, len(blocks))
        return replace(result, dev=evaluation.scores, dev_quarters=quarters)

    def _tell_remarks(self, trial: optuna.Trial, evaluation: Evaluation) -> None:
        """Of each task the first that there is anything to say of."""
        for task, remark in evaluation.remarks.items():
            if task not in self._remarked:
                self._remarked.add(task)
                self._say(f"trial {trial.number}: {remark}")
