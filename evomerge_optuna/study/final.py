"""Final scores: source models, uniform merge and a trial's recipe on every split, scored once."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.merging.merger import EveryMerger, Merger
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.study.front import knee
from evomerge_optuna.study.objective import DIGEST
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


def final_scores(
    merge_study: MergeStudy,
    trial: FrozenTrial,
    say: Callable[[str], None] = lambda _: None,
) -> list[FinalScores]:
    """Scores every contestant on every split of the spec; what is stored is not scored again.

    Raises:
        EvomergeError: the trial's recipe no longer gives the tensors it was scored with.
    """
    splits = [
        split
        for split in SPLITS
        if any(split in task.data.sources() for task in merge_study.spec.tasks.values())
    ]
    evaluator, merger = Evaluator(merge_study.spec), EveryMerger(merge_study.spec.evaluation)
    table = []
    for contestant in contestants(merge_study, trial):
        stored = stored_scores(merge_study, contestant)
        missing = [split for split in splits if split not in stored]
        if missing:
            say(f"scoring {contestant.name} on {', '.join(missing)}")
            expected = trial.user_attrs[DIGEST] if contestant.recipe == recipe_of(trial) else None
            stored = _score(merge_study, contestant, merger, evaluator, missing, expected)
        table.append(FinalScores(contestant.name, {split: stored[split] for split in splits}))
    return table


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
    `score_front` has scored it there; without a dev split, on search.

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


def score_front(merge_study: MergeStudy, say: Callable[[str], None] = lambda _: None) -> None:
    """Scores the trials of a front of several objectives on dev, once."""
    front = merge_study.front()
    if not _is_chosen_on_dev(merge_study, front):
        return
    evaluator, merger = Evaluator(merge_study.spec), EveryMerger(merge_study.spec.evaluation)
    for trial in front:
        contestant = _contestant(trial)
        if "dev" not in stored_scores(merge_study, contestant):
            say(f"scoring {contestant.name} of the front on dev")
            expected = trial.user_attrs[DIGEST]
            _score(merge_study, contestant, merger, evaluator, ["dev"], expected)


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


def _score(
    merge_study: MergeStudy,
    contestant: Contestant,
    merger: Merger,
    evaluator: Evaluator,
    splits: list[str],
    expected: str | None,
) -> dict[str, dict[str, Score]]:
    """Scores a contestant and stores that; returns all that is stored of it."""
    if contestant.recipe is None:
        assert contestant.model is not None
        device = merge_study.spec.evaluation.device
        model, tokenizer = load_model(local_folder(contestant.model), device)
    else:
        merged = merger.merge(contestant.recipe)
        if expected is not None and merged.digest != expected:
            raise EvomergeError(
                f"{contestant.name}: its recipe now gives other tensors "
                f"(sha256 {merged.digest[:12]}) than when it was scored ({expected[:12]}); are "
                "the package versions those stored with the study?"
            )
        model, tokenizer = merged.model, merged.tokenizer
    found = [evaluator.evaluate(model, tokenizer, split) for split in splits]
    scores = stored_scores(merge_study, contestant) | {e.split: e.scores for e in found}
    outcomes = stored_outcomes(merge_study, contestant.identity)
    outcomes |= {evaluation.split: evaluation.marks() for evaluation in found}
    merge_study.study.set_user_attr(_OUTCOMES + contestant.identity, outcomes)
    merge_study.study.set_user_attr(
        _ATTRIBUTE + contestant.identity,
        {
            split: {metric: asdict(score) for metric, score in by_metric.items()}
            for split, by_metric in scores.items()
        },
    )
    return scores


def stored_scores(merge_study: MergeStudy, contestant: Contestant) -> dict[str, dict[str, Score]]:
    """A contestant's scores as far as they are stored, by split and then by metric."""
    saved: dict[str, Any] = merge_study.study.user_attrs.get(_ATTRIBUTE + contestant.identity, {})
    return {
        split: {metric: Score(**score) for metric, score in scores.items()}
        for split, scores in saved.items()
    }
