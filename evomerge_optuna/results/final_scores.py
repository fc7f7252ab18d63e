"""Final scores as they are stored: of the sources, the baseline and one trial, on every split."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.recipe import Recipe, parse_recipe
from evomerge_optuna.results.trained import TRAINED, trained_identity
from evomerge_optuna.spec import AdapterStudySpec
from evomerge_optuna.study.quarters import Part
from evomerge_optuna.study.result import Scores, as_scores, result_of
from evomerge_optuna.study.schema import (
    FINAL_OUTCOMES,
    FINAL_SCORES,
    FINALIST,
    FINGERPRINTS,
    UNSEARCHED,
)
from evomerge_optuna.study.studies import MergeStudy, recipe_of


@dataclass(frozen=True)
class ModelToScore:
    """One row of the final table: a source model or a recipe.

    What `is_trained` has no recipe before it is trained. `confirmed` are the scores by split that
    its trial has from the search, `quarters` those on the quarters of dev. What `is_extra` is left
    out where it cannot be built.
    """

    name: str
    identity: str
    model: str | None = None
    recipe: Recipe | None = None
    confirmed: dict[str, Scores] = field(default_factory=dict)
    quarters: Sequence[Part] = ()
    is_extra: bool = False
    is_trained: bool = False


@dataclass(frozen=True)
class FinalScores:
    """A model's scores, by split and then by `TASK.METRIC`."""

    name: str
    scores: dict[str, Scores]


def models_to_score(merge_study: MergeStudy, trial: FrozenTrial) -> list[ModelToScore]:
    """Each source model, the baseline, merges that nothing was searched for, the trial's recipe."""
    fingerprints = merge_study.attributes()[FINGERPRINTS]
    space = merge_study.space
    sources = [
        ModelToScore(alias, fingerprints[key]["weights"], model, space.alone(alias))
        for key, model in merge_study.spec.source_ids().items()
        for alias in [key.removeprefix("models.")]
    ]
    baseline = space.recipe(space.baseline())
    return [
        *sources,
        ModelToScore(space.baseline_name, baseline.digest(), recipe=baseline),
        *_unsearched(merge_study),
        *_controls(merge_study, trial),
        model_of_trial(trial),
    ]


def _unsearched(merge_study: MergeStudy) -> list[ModelToScore]:
    """Merges by methods that have nothing to search; studies of earlier versions have none."""
    stored = merge_study.attributes().get(UNSEARCHED, {})
    recipes = {name: parse_recipe(content) for name, content in stored.items()}
    return [ModelToScore(name, r.digest(), recipe=r, is_extra=True) for name, r in recipes.items()]


def _controls(merge_study: MergeStudy, trial: FrozenTrial) -> Iterator[ModelToScore]:
    """What a study of adapters is to be compared with, as its spec asks."""
    spec, recipe = merge_study.spec, recipe_of(trial)
    if not isinstance(spec, AdapterStudySpec) or not isinstance(recipe, AdapterRecipe):
        return
    if "random_adapters" in spec.baselines:
        drawn = recipe.model_copy(update={"random": spec.sampler.seed})
        name = f"random adapters, merged as trial {trial.number}"
        yield ModelToScore(name, drawn.digest(), recipe=drawn, is_extra=True)
    if "trained" in spec.baselines:
        yield ModelToScore(TRAINED, trained_identity(merge_study), is_extra=True, is_trained=True)


def model_of_trial(trial: FrozenTrial) -> ModelToScore:
    recipe, result = recipe_of(trial), result_of(trial)
    confirmed: dict[str, Scores] = {} if result.dev is None else {"dev": result.dev}
    name = f"trial {trial.number}"
    return ModelToScore(name, recipe.digest(), None, recipe, confirmed, result.dev_quarters)


def stored_quarters(merge_study: MergeStudy, entry: ModelToScore) -> list[Part]:
    """A model's scores on the first quarters of dev, as far as they are stored."""
    stored = merge_study.attributes().get(FINALIST + entry.identity, entry.quarters)
    return [(value, n) for value, n in stored]


def stored_scores(merge_study: MergeStudy, entry: ModelToScore) -> dict[str, Scores]:
    """A model's scores as far as they are stored, by split and then by metric."""
    saved = merge_study.attributes().get(FINAL_SCORES + entry.identity, {})
    return entry.confirmed | {split: as_scores(scores) for split, scores in saved.items()}


def stored_final_scores(merge_study: MergeStudy, trial: FrozenTrial) -> list[FinalScores]:
    """What is stored of the same models' scores; none that has no score, but the trial's."""
    found = models_to_score(merge_study, trial)
    *others, own = [FinalScores(c.name, stored_scores(merge_study, c)) for c in found]
    scored = [row for row in others if row.scores]
    return [*scored, own] if scored or own.scores else []


def stored_outcomes(merge_study: MergeStudy, identity: str) -> dict[str, dict[str, str]]:
    """By split and task a 1 for each problem answered right and a 0 for each other, in order."""
    return dict(merge_study.attributes().get(FINAL_OUTCOMES + identity, {}))
