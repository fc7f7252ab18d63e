"""Final scores: source models, uniform merge and a trial's recipe on every split, scored once."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

from optuna.trial import FrozenTrial

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import Engine
from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.merging.tokenizer import give_chat_template, reader_of_candidate
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.results.front import knee
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.study.answers import keep_final_answers
from evomerge_optuna.study.renamed import following
from evomerge_optuna.study.result import Scores, as_scored, as_scores, result_of
from evomerge_optuna.study.schema import FINAL_OUTCOMES, FINAL_SCORES, FINGERPRINTS
from evomerge_optuna.study.studies import MergeStudy, recipe_of

FINALISTS = 5  # trials among which dev decides for a single objective


@dataclass(frozen=True)
class Contestant:
    """One row of the final table: a source model or a recipe.

    `confirmed` are the scores by split that its trial has from the search.
    """

    name: str
    identity: str
    model: str | None = None
    recipe: Recipe | None = None
    confirmed: dict[str, Scores] = field(default_factory=dict)


@dataclass(frozen=True)
class FinalScores:
    """A contestant's scores, by split and then by `TASK.METRIC`."""

    name: str
    scores: dict[str, Scores]


def contestants(merge_study: MergeStudy, trial: FrozenTrial) -> list[Contestant]:
    """Each source model, the baseline of the search space, and the recipe of the trial."""
    fingerprints = merge_study.study.user_attrs[FINGERPRINTS]
    sources = [
        Contestant(key.removeprefix("models."), fingerprints[key]["weights"], model=model)
        for key, model in merge_study.spec.source_ids().items()
    ]
    space = merge_study.space
    baseline = space.recipe(space.baseline())
    return [
        *sources,
        Contestant(space.baseline_name, baseline.digest(), recipe=baseline),
        _contestant(trial),
    ]


class FinalScorer:
    """Scores the models of a study's final table; what is stored is not scored again."""

    def __init__(
        self, merge_study: MergeStudy, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self._study = merge_study
        self._say = say
        self._builder = candidate_builder(merge_study.spec.evaluation)
        self._evaluator = Evaluator(merge_study.spec, merge_study.day)

    def final_scores(self, trial: FrozenTrial) -> list[FinalScores]:
        """Scores every contestant on every split of the spec.

        Raises:
            EvomergeError: the trial's recipe no longer gives the tensors it was scored with.
        """
        tasks = self._study.spec.tasks.values()
        splits = [s for s in SPLITS if any(s in task.data.sources() for task in tasks)]
        table = []
        for contestant in contestants(self._study, trial):
            scores = self._scores(contestant, splits, trial)
            table.append(FinalScores(contestant.name, {split: scores[split] for split in splits}))
        return table

    def score_finalists(self) -> None:
        """Scores the finalists on dev, where that decides among them."""
        found = finalists(self._study)
        if self._study.spec.has_dev and len(found) > 1:
            for trial in found:
                self._scores(_contestant(trial), ["dev"], trial)

    def _scores(
        self, contestant: Contestant, splits: list[str], trial: FrozenTrial
    ) -> dict[str, Scores]:
        """All scores of a contestant; those on these splits are computed where none are stored.

        A source that takes no images is asked the questions of images alone.
        """
        stored = following(self._study, partial(stored_scores, self._study, contestant))
        missing = [split for split in splits if split not in stored]
        if not missing:
            return stored
        self._say(f"scoring {contestant.name} on {', '.join(missing)}")
        engine = self._engine(contestant, trial)
        found = [self._evaluator.evaluate(engine, split, without_images=True) for split in missing]
        for evaluation in found:
            for remark in evaluation.remarks.values():
                self._say(f"{contestant.name} on {evaluation.split}: {remark}")
            who = (contestant.name, contestant.identity)
            following(
                self._study, partial(keep_final_answers, self._study, *who, evaluation, self._say)
            )
        scores = stored | {evaluation.split: evaluation.scores for evaluation in found}
        marks = {evaluation.split: evaluation.marks() for evaluation in found}
        by_split = {split: {m: asdict(s) for m, s in of.items()} for split, of in scores.items()}

        def store() -> None:
            outcomes = stored_outcomes(self._study, contestant.identity) | marks
            self._study.study.set_user_attr(FINAL_OUTCOMES + contestant.identity, outcomes)
            self._study.study.set_user_attr(FINAL_SCORES + contestant.identity, by_split)

        following(self._study, store)
        return scores

    @cached_property
    def _merged_tokenizer(self) -> Any:
        return reader_of_candidate(self._study.space.recipe(self._study.space.baseline())).tokenizer

    def _engine(self, contestant: Contestant, trial: FrozenTrial) -> Engine:
        """A contestant, ready to be asked; the trial's own must be what it was scored as."""
        if contestant.recipe is None:
            assert contestant.model is not None
            engine = load_engine(local_folder(contestant.model), self._study.spec.evaluation)
            give_chat_template(engine.reader.tokenizer, lambda: self._merged_tokenizer)
            return engine
        with as_scored(trial):
            candidate = self._builder.build(contestant.recipe)
        scored = result_of(trial).sha256
        if contestant.recipe == recipe_of(trial) and candidate.digest != scored:
            raise EvomergeError(
                f"{contestant.name}: its recipe now gives other tensors "
                f"(sha256 {candidate.digest[:12]}) than when it was scored ({scored[:12]}); are "
                "the package versions those stored with the study?"
            )
        return candidate.engine


def stored_final_scores(merge_study: MergeStudy, trial: FrozenTrial) -> list[FinalScores]:
    """What is stored of the same contestants' scores; none that has no score, but the trial's."""
    found = contestants(merge_study, trial)
    *others, own = [FinalScores(c.name, stored_scores(merge_study, c)) for c in found]
    scored = [row for row in others if row.scores]
    return [*scored, own] if scored or own.scores else []


def stored_outcomes(merge_study: MergeStudy, identity: str) -> dict[str, dict[str, str]]:
    """By split and task a 1 for each problem answered right and a 0 for each other, in order."""
    return dict(merge_study.study.user_attrs.get(FINAL_OUTCOMES + identity, {}))


def finalists(merge_study: MergeStudy) -> list[FrozenTrial]:
    """The trials of which dev chooses one, ranked: the Pareto front, or the best of one objective.

    A recipe that several trials have is a finalist once.
    """
    if len(merge_study.spec.objectives) > 1:
        return merge_study.front()
    found: dict[str, FrozenTrial] = {}
    for trial in merge_study.ranked():
        found.setdefault(recipe_of(trial).digest(), trial)
        if len(found) == FINALISTS:
            break
    return list(found.values())


def choice(merge_study: MergeStudy) -> FrozenTrial | None:
    """The study's result as far as it is known; None where no trial is scored.

    That is the finalist which is best on dev in the first objective, once all are scored there,
    and the best on search until then, or where there is no dev split.
    """
    return _best_on_dev(merge_study) or merge_study.best()


def choose_trial(merge_study: MergeStudy, which: str) -> FrozenTrial:
    """A trial by its number, the knee of the Pareto front, or the best one, which is the `choice`.

    Raises:
        UsageError: there is no such scored trial, or a front of several objectives has no dev
            scores yet.
    """
    if which in ("best", "knee"):
        chosen = choice(merge_study)
        if chosen is None:
            raise UsageError(f"study '{merge_study.name}' has no scored trial yet; run it first")
        if which == "knee":
            return knee(merge_study, merge_study.front())
        if len(merge_study.spec.objectives) > 1:
            _require_dev_scores(merge_study)
        return chosen
    if not which.isascii() or not which.isdigit():
        raise UsageError(f"--trial takes a trial's number, 'best' or 'knee', not '{which}'")
    trials = merge_study.read()
    found = [t for t in trials.everything if t.number == int(which)]
    if found and found[0].number in trials.foreign:
        raise UsageError(
            f"trial {which} of study '{merge_study.name}' is foreign: it was added by something "
            "else, and has no recipe or no scores of this study's tasks"
        )
    if not found:
        raise UsageError(f"study '{merge_study.name}' has no trial {which}")
    if not found[0].state.is_finished() or found[0].values is None:
        raise UsageError(f"trial {which} of study '{merge_study.name}' has no score")
    return found[0]


def without_dev_score(merge_study: MergeStudy) -> list[FrozenTrial]:
    """The finalists that dev cannot decide on yet; `FinalScorer.score_finalists` scores them."""
    found = finalists(merge_study)
    if not merge_study.spec.has_dev or len(found) < 2:
        return []
    return [trial for trial in found if _on_dev(merge_study, trial) is None]


def is_chosen_on_dev(merge_study: MergeStudy) -> bool:
    """Did dev decide which trial is the study's `choice`?"""
    several = merge_study.spec.has_dev and len(finalists(merge_study)) > 1
    return several and not without_dev_score(merge_study)


def _best_on_dev(merge_study: MergeStudy) -> FrozenTrial | None:
    if not is_chosen_on_dev(merge_study):
        return None

    def gain(trial: FrozenTrial) -> float:
        score = _on_dev(merge_study, trial)
        if score is None or not math.isfinite(score.value):
            return -math.inf
        return merge_study.spec.objective.sign * score.value

    return max(finalists(merge_study), key=gain)


def _on_dev(merge_study: MergeStudy, trial: FrozenTrial) -> Score | None:
    scores = stored_scores(merge_study, _contestant(trial)).get("dev", {})
    return scores.get(merge_study.spec.objective.target)


def _require_dev_scores(merge_study: MergeStudy) -> None:
    if missing := without_dev_score(merge_study):
        raise UsageError(
            f"study '{merge_study.name}' has a front of {len(merge_study.front())} trials, of "
            f"which {len(missing)} have no dev score; run study test {merge_study.name}, or name "
            "one with --trial"
        )


def _contestant(trial: FrozenTrial) -> Contestant:
    recipe = recipe_of(trial)
    dev = result_of(trial).dev
    confirmed: dict[str, Scores] = {} if dev is None else {"dev": dev}
    return Contestant(f"trial {trial.number}", recipe.digest(), None, recipe, confirmed)


def stored_scores(merge_study: MergeStudy, contestant: Contestant) -> dict[str, Scores]:
    """A contestant's scores as far as they are stored, by split and then by metric."""
    saved = merge_study.study.user_attrs.get(FINAL_SCORES + contestant.identity, {})
    return contestant.confirmed | {split: as_scores(scores) for split, scores in saved.items()}
