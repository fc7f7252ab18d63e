"""Final scores: source models, uniform merge and a trial's recipe on every split, scored once."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.merging.merger import EveryMerger
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.study.front import knee
from evomerge_optuna.study.objective import DIGEST, as_scored
from evomerge_optuna.study.studies import FINGERPRINTS, MergeStudy, recipe_of

# + the identity of what was scored: study attributes of each contestant.
_ATTRIBUTE = "final:"
_OUTCOMES = "outcomes:"  # a 1 or 0 for each problem by split and task: right or not


@dataclass(frozen=True)
class Contestant:
    """One row of the final table: a source model or a recipe."""

    name: str
    identity: str
    model: str | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True)
class FinalScores:
    """A contestant's scores, by split and then by `TASK.METRIC`."""

    name: str
    scores: dict[str, dict[str, Score]]


def contestants(merge_study: MergeStudy, trial: FrozenTrial) -> list[Contestant]:
    """Each source model, the baseline of the search space, and the recipe of the trial."""
    fingerprints = merge_study.study.user_attrs[FINGERPRINTS]
    sources = [
        Contestant(alias, fingerprints[f"models.{alias}"]["weights"], model=model)
        for alias, model in merge_study.spec.models.items()
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
        self._merger = EveryMerger(merge_study.spec.evaluation)
        self._evaluator = Evaluator(merge_study.spec)

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

    def score_front(self) -> None:
        """Scores the trials of a front of several objectives on dev."""
        front = self._study.front()
        if _is_chosen_on_dev(self._study, front):
            for trial in front:
                self._scores(_contestant(trial), ["dev"], trial)

    def _scores(
        self, contestant: Contestant, splits: list[str], trial: FrozenTrial
    ) -> dict[str, dict[str, Score]]:
        """All scores of a contestant; those on these splits are computed where none are stored."""
        stored = stored_scores(self._study, contestant)
        missing = [split for split in splits if split not in stored]
        if not missing:
            return stored
        self._say(f"scoring {contestant.name} on {', '.join(missing)}")
        model, tokenizer = self._model(contestant, trial)
        found = [self._evaluator.evaluate(model, tokenizer, split) for split in missing]
        scores = stored | {evaluation.split: evaluation.scores for evaluation in found}
        outcomes = stored_outcomes(self._study, contestant.identity)
        outcomes |= {evaluation.split: evaluation.marks() for evaluation in found}
        study = self._study.study
        study.set_user_attr(_OUTCOMES + contestant.identity, outcomes)
        study.set_user_attr(
            _ATTRIBUTE + contestant.identity,
            {
                split: {metric: asdict(score) for metric, score in by_metric.items()}
                for split, by_metric in scores.items()
            },
        )
        return scores

    def _model(self, contestant: Contestant, trial: FrozenTrial) -> tuple[Any, Any]:
        """A contestant's model and tokenizer; the trial's own must be what it was scored as."""
        if contestant.recipe is None:
            assert contestant.model is not None
            device = self._study.spec.evaluation.device
            return load_model(local_folder(contestant.model), device)
        with as_scored(trial):
            merged = self._merger.merge(contestant.recipe)
        scored = trial.user_attrs[DIGEST]
        if contestant.recipe == recipe_of(trial) and merged.digest != scored:
            raise EvomergeError(
                f"{contestant.name}: its recipe now gives other tensors "
                f"(sha256 {merged.digest[:12]}) than when it was scored ({scored[:12]}); are "
                "the package versions those stored with the study?"
            )
        return merged.model, merged.tokenizer


def stored_final_scores(merge_study: MergeStudy, trial: FrozenTrial) -> list[FinalScores]:
    """What `final_scores` has stored, without scoring anything."""
    found = [(c.name, stored_scores(merge_study, c)) for c in contestants(merge_study, trial)]
    return [FinalScores(name, scores) for name, scores in found if scores]


def stored_outcomes(merge_study: MergeStudy, identity: str) -> dict[str, dict[str, str]]:
    """By split and task a 1 for each problem answered right and a 0 for each other, in order."""
    return dict(merge_study.study.user_attrs.get(_OUTCOMES + identity, {}))


def choose_trial(merge_study: MergeStudy, which: str) -> FrozenTrial:
    """A trial by its number, the knee of the Pareto front, or the best one.

    The best of several objectives is that of the front whose first objective is best on dev, once
    `FinalScorer.score_front` has scored it there; without a dev split, on search.

    Raises:
        UsageError: there is no such scored trial, or the front has no dev scores yet.
    """
    if which in ("best", "knee"):
        front = merge_study.front()
        if not front:
            raise UsageError(f"study '{merge_study.name}' has no scored trial yet; run it first")
        return knee(merge_study, front) if which == "knee" else _best_on_dev(merge_study, front)
    if not which.isascii() or not which.isdigit():
        raise UsageError(f"--trial takes a trial's number, 'best' or 'knee', not '{which}'")
    found = [t for t in merge_study.study.get_trials(deepcopy=False) if t.number == int(which)]
    if not found:
        raise UsageError(f"study '{merge_study.name}' has no trial {which}")
    if not found[0].state.is_finished() or found[0].values is None:
        raise UsageError(f"trial {which} of study '{merge_study.name}' has no score")
    return found[0]


def _best_on_dev(merge_study: MergeStudy, front: list[FrozenTrial]) -> FrozenTrial:
    if not _is_chosen_on_dev(merge_study, front):
        return front[0]
    first = merge_study.spec.objective
    scored = [(trial, stored_scores(merge_study, _contestant(trial)).get("dev")) for trial in front]
    dev = [(trial, scores[first.target].value) for trial, scores in scored if scores]
    if len(dev) < len(front):
        raise UsageError(
            f"study '{merge_study.name}' has a front of {len(front)} trials, of which "
            f"{len(front) - len(dev)} have no dev score; run study test {merge_study.name}, or "
            "name one with --trial"
        )
    return max(dev, key=lambda found: first.sign * found[1])[0]


def _is_chosen_on_dev(merge_study: MergeStudy, front: list[FrozenTrial]) -> bool:
    task = merge_study.spec.tasks.get(merge_study.spec.objective.task)
    return len(front) > 1 and task is not None and "dev" in task.data.sources()


def _contestant(trial: FrozenTrial) -> Contestant:
    recipe = recipe_of(trial)
    return Contestant(f"trial {trial.number}", recipe.digest(), recipe=recipe)


def stored_scores(merge_study: MergeStudy, contestant: Contestant) -> dict[str, dict[str, Score]]:
    """A contestant's scores as far as they are stored, by split and then by metric."""
    saved: dict[str, Any] = merge_study.study.user_attrs.get(_ATTRIBUTE + contestant.identity, {})
    return {
        split: {metric: Score(**score) for metric, score in scores.items()}
        for split, scores in saved.items()
    }
