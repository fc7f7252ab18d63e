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
from evomerge_optuna.study.objective import DIGEST
from evomerge_optuna.study.studies import FINGERPRINTS, MergeStudy, recipe_of

_ATTRIBUTE = "final:"  # + the identity of what was scored: a study attribute a contestant


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
    recipe = recipe_of(trial)
    return [
        *sources,
        Contestant(space.baseline_name, baseline.digest(), recipe=baseline),
        Contestant(f"trial {trial.number}", recipe.digest(), recipe=recipe),
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
        stored = _stored(merge_study, contestant)
        missing = [split for split in splits if split not in stored]
        if missing:
            say(f"scoring {contestant.name} on {', '.join(missing)}")
            expected = trial.user_attrs[DIGEST] if contestant.recipe == recipe_of(trial) else None
            stored |= _score(merge_study, contestant, merger, evaluator, missing, expected)
            _store(merge_study, contestant, stored)
        table.append(FinalScores(contestant.name, {split: stored[split] for split in splits}))
    return table


def stored_final_scores(merge_study: MergeStudy, trial: FrozenTrial) -> list[FinalScores]:
    """What `final_scores` has stored, without scoring anything."""
    found = [(c.name, _stored(merge_study, c)) for c in contestants(merge_study, trial)]
    return [FinalScores(name, scores) for name, scores in found if scores]


def choose_trial(merge_study: MergeStudy, which: str) -> FrozenTrial:
    """A trial by its number, or the best one.

    Raises:
        UsageError: there is no such scored trial.
    """
    if which == "best":
        best = merge_study.best()
        if best is None:
            raise UsageError(f"study '{merge_study.name}' has no scored trial yet; run it first")
        return best
    if not which.isascii() or not which.isdigit():
        raise UsageError(f"--trial takes a trial's number or 'best', not '{which}'")
    found = [t for t in merge_study.study.get_trials(deepcopy=False) if t.number == int(which)]
    if not found:
        raise UsageError(f"study '{merge_study.name}' has no trial {which}")
    if not found[0].state.is_finished() or found[0].values is None:
        raise UsageError(f"trial {which} of study '{merge_study.name}' has no score")
    return found[0]


def _score(
    merge_study: MergeStudy,
    contestant: Contestant,
    merger: Merger,
    evaluator: Evaluator,
    splits: list[str],
    expected: str | None,
) -> dict[str, dict[str, Score]]:
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
    return {split: evaluator.evaluate(model, tokenizer, split).scores for split in splits}


def _stored(merge_study: MergeStudy, contestant: Contestant) -> dict[str, dict[str, Score]]:
    saved: dict[str, Any] = merge_study.study.user_attrs.get(_ATTRIBUTE + contestant.identity, {})
    return {
        split: {metric: Score(**score) for metric, score in scores.items()}
        for split, scores in saved.items()
    }


def _store(
    merge_study: MergeStudy, contestant: Contestant, scores: dict[str, dict[str, Score]]
) -> None:
    merge_study.study.set_user_attr(
        _ATTRIBUTE + contestant.identity,
        {
            split: {metric: asdict(score) for metric, score in by_metric.items()}
            for split, by_metric in scores.items()
        },
    )
