"""What the dashboard's notes say of a study and of a trial, in Markdown."""

from collections.abc import Sequence
from contextlib import suppress

from optuna.trial import FrozenTrial, TrialState

from evomerge_optuna.errors import StorageError
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.report.answers import answers_note
from evomerge_optuna.report.gap import gap_text
from evomerge_optuna.report.markdown import objectives, table
from evomerge_optuna.report.numbers import show_score_and_n
from evomerge_optuna.report.tables import show_value
from evomerge_optuna.results.chosen_trial import chosen_trial, is_chosen_on_dev, knee
from evomerge_optuna.results.convergence import convergence_remark
from evomerge_optuna.results.final_scores import FinalScores, stored_final_scores
from evomerge_optuna.spec import SPLITS, StudySpec
from evomerge_optuna.study.answers import answers_of_trial, latest_answers
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import BASELINE, ERROR, RECIPE, STOPPED
from evomerge_optuna.study.studies import MergeStudy, recipe_of
from evomerge_optuna.study.trials import Trials


def study_note(merge_study: MergeStudy, pictures: Sequence[str] = ()) -> str:
    """What is searched, from which models, how it stands, how to keep the result, the spec.

    Args:
        pictures: contact sheets, in Markdown.
    """
    spec, best, front = merge_study.spec, chosen_trial(merge_study), merge_study.front()
    name = merge_study.quoted_name
    parts = [
        f"# {merge_study.name}",
        f"Searches for the recipe of a merged model (stage {spec.stage}, {spec.method}) from "
        f"{', '.join(spec.models)}: {objectives(spec)} on the search split.",
    ]
    if best is not None:
        on_dev = is_chosen_on_dev(merge_study)
        how = "the best on search and dev" if on_dev else "the best"
        parts.append(_scores(spec, merge_study.read(), (f"trial {best.number}, {how}", best)))
        if remark := _other_best(merge_study, best):
            parts.append(remark)
        if final := stored_final_scores(merge_study, best):
            parts += [
                "Scores on the splits so far, with 95% intervals:",
                _final(spec, final),
            ]
            if gap := gap_text(spec.objective, spec.metric(spec.objective.target), final[-1]):
                parts.append(gap)
        if remark := convergence_remark(merge_study, merge_study.read()):
            parts.append(remark)
        parts += pictures or _answers(merge_study, best, of_search_alone=False)
    parts.append(f"Export the best: `evomerge-optuna study export {name} OUT`")
    if len(front) > 1:
        parts.append(
            f"The Pareto front has {len(front)} trials. Export its knee, trial "
            f"{knee(merge_study, front).number}: "
            f"`evomerge-optuna study export {name} OUT --trial knee`"
        )
    return "\n\n".join([*parts, f"```yaml\n{spec.to_yaml()}```"]) + "\n"


def _other_best(merge_study: MergeStudy, chosen: FrozenTrial) -> str:
    """Where the dashboard calls another trial the best than the commands do; '' elsewhere."""
    on_search = merge_study.best()
    if len(merge_study.spec.objectives) > 1 or on_search is None or on_search == chosen:
        return ""
    return (
        f"The *Best Trial* of this page is trial {on_search.number}, the best on search alone. "
        f"The study's result is trial {chosen.number}: dev has chosen it among the best few, and "
        "`study export`, `show` and `test` take it."
    )


def trial_note(merge_study: MergeStudy, trial: FrozenTrial, before: Trials) -> str:
    """What a finished trial is, its scores, its export, its recipe.

    Args:
        before: the study's trials as they were when it was taken; the baselines among them are
            shown beside it.
    """
    parts = []
    if BASELINE in trial.user_attrs:
        parts.append(f"Baseline: {trial.user_attrs[BASELINE]}.")
    if ERROR in trial.user_attrs:
        parts.append(f"Failed: {trial.user_attrs[ERROR]}")
    if STOPPED in trial.user_attrs:
        problems = trial.user_attrs[STOPPED]
        parts.append(f"Stopped after {problems} problems, surely worse than the best by then.")
    if trial.state is TrialState.COMPLETE:
        parts.append(_scores(merge_study.spec, before, (f"trial {trial.number}", trial)))
        parts.append(
            "Export it: "
            f"`evomerge-optuna study export {merge_study.quoted_name} OUT --trial {trial.number}`"
        )
        parts += _answers(merge_study, trial, of_search_alone=True)
    if RECIPE in trial.user_attrs:
        recipe = recipe_of(trial)
        if isinstance(recipe, MergeRecipe):
            parts.append(f"mergekit configuration, masks seeded with {recipe.seed}:")
        elif isinstance(recipe, AdapterRecipe):
            parts.append(f"Adapters of {recipe.base_model}, merged by {recipe.method}:")
        else:
            parts.append(f"A path of {len(recipe.steps)} layers:")
        parts.append(f"```yaml\n{recipe.to_yaml()}```")
    return "\n\n".join(parts)


def _scores(spec: StudySpec, trials: Trials, first: tuple[str, FrozenTrial]) -> str:
    """A trial's objectives on the search split, and below it those of the baselines."""
    wanted = trials.objectives
    rows = [first] + [
        (str(baseline.user_attrs[BASELINE]), baseline)
        for baseline in trials.baselines
        if baseline.number != first[1].number
    ]
    return table(
        ["on search", *(objective.target for objective in wanted)],
        ([name, *(show_value(spec, trial, o) for o in wanted)] for name, trial in rows),
    )


def _answers(merge_study: MergeStudy, trial: FrozenTrial, *, of_search_alone: bool) -> list[str]:
    """Some of a scored trial's answers, of test where they are stored; none where none are.

    Args:
        of_search_alone: those that the trial itself has, which needs no look at others.
    """
    rows, split = None, "search"
    with suppress(StorageError):  # a page without them is better than none
        if of_search_alone:
            rows = answers_of_trial(merge_study, trial, split)
        else:
            rows, split = latest_answers(merge_study, result_of(trial).recipe)
    tasks = runners(merge_study.spec.tasks)
    whose = f"trial {trial.number}"
    if not rows or not (shown := answers_note(tasks, split, rows, whose)):
        return []
    command = f"evomerge-optuna study answers {merge_study.quoted_name} --trial {trial.number}"
    return [f"Some of its answers (all of them: `{command}`):", shown]


def _final(spec: StudySpec, rows: Sequence[FinalScores]) -> str:
    target = spec.objective.target
    metric = spec.metric(target)
    splits = [split for split in SPLITS if any(split in row.scores for row in rows)]
    return table(
        [target, *splits],
        (
            [r.name, *(show_score_and_n(r.scores.get(s, {}).get(target), metric) for s in splits)]
            for r in rows
        ),
    )
