"""The report of one study: a page to send to somebody who has not seen it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from optuna.trial import FrozenTrial

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.user_code import code_of
from evomerge_optuna.families import family_of_host
from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.report.answers import Asked, answers_of_study, count_line
from evomerge_optuna.report.card import (
    RECIPE_FILE,
    shown_model,
    shown_recipe,
    without_places,
)
from evomerge_optuna.report.dashboard import study_figures
from evomerge_optuna.report.gap import gap_text
from evomerge_optuna.report.numbers import show_score
from evomerge_optuna.report.page import INK, Rows, figure_html, page, rows_of
from evomerge_optuna.report.search_figures import (
    LOUD,
    QUIET,
    front_figure,
    history_figure,
    importance_figure,
    importances,
    in_percent,
)
from evomerge_optuna.report.sheets import contact_sheets
from evomerge_optuna.report.tables import final_table, show_value, study_table
from evomerge_optuna.report.telling_answers import shown, shown_prompt, telling_problems
from evomerge_optuna.report.words import (
    goals,
    merge_values,
    recipe_in_words,
    search_in_words,
    spoken,
)
from evomerge_optuna.results.chosen_trial import chosen_trial, is_chosen_on_dev
from evomerge_optuna.results.convergence import convergence_remark
from evomerge_optuna.results.final_scores import FinalScores, stored_final_scores
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import ERROR, FINGERPRINTS, VERSIONS
from evomerge_optuna.study.studies import MergeStudy, recipe_of

_ROWS = 16  # of the merge's values; beyond them a heat map tells more than a table
_BOXES = 5  # trials, before which a box tells nothing

Figures = list[tuple[str, Markup]]  # with what is to be seen in each


def write_study_page(merge_study: MergeStudy, file: Path) -> None:
    """Writes the page of a study as it is now.

    Raises:
        UsageError: no trial is scored yet.
        EvomergeError: the file cannot be written.
    """
    content = study_page(merge_study.as_read())
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise EvomergeError(f"{file}: cannot be written: {error.strerror}") from error


def study_page(merge_study: MergeStudy) -> str:
    """The page as HTML, with all that it shows.

    Raises:
        UsageError: no trial is scored yet.
    """
    best, trials, spec = chosen_trial(merge_study), merge_study.read(), merge_study.spec
    if best is None:
        raise UsageError(f"study '{merge_study.name}' has no scored trial yet; run it first")
    rows = _scored(merge_study, best)
    recipe = recipe_of(best)
    versions = merge_study.attributes()[VERSIONS]
    asked, models = _answers(merge_study, best), [*spec.models, f"trial {best.number}"]
    several = len(spec.objectives) > 1
    figures, values = study_figures(merge_study), _values(merge_study, best)
    return page(
        "study.html",
        name=merge_study.name,
        version=versions["evomerge-optuna"],
        goals=goals(spec),
        tiles=_tiles(merge_study, best, rows),
        scores=[
            (
                spoken(target, spec),
                rows_of(final_table(merge_study.name, one, rows), (len(rows) - 1,)),
            )
            for target, one in _by_objective(merge_study)
        ],
        is_tested=any("test" in row.scores for row in rows),
        quoted=merge_study.quoted_name,
        code=" --allow-code" if code_of(spec) else "",
        gap=gap_text(spec.objective, spec.metric(spec.objective.target), rows[-1])
        if not spec.objective.is_cost
        else "",
        score_figures=_test_figure(merge_study, figures.get("scores"), rows[-1].name),
        searched=search_in_words(merge_study),
        chosen=best.number,
        on_dev=is_chosen_on_dev(merge_study),
        words=recipe_in_words(merge_study, best),
        values=values,
        about=_about(recipe),
        recipe=shown_recipe(recipe),
        recipe_figures=_recipe_figures(merge_study, figures, has_table=values is not None),
        figures=list(_search_figures(merge_study, best, rows)),
        trials_title="The Pareto front" if several else "The best trials on search",
        trials=rows_of(study_table(merge_study)),
        converged=convergence_remark(merge_study, trials),
        answers_line=count_line(asked),
        answers_split=asked[0].split if asked else "",
        kinds=telling_problems(asked, models[-1], models[:-1]),
        models=models,
        shown=shown,
        shown_prompt=shown_prompt,
        sheets=_sheets(merge_study, best),
        sha256=result_of(best).sha256,
        lineage=_lineage(merge_study),
        versions=versions,
        spec=to_yaml(
            without_places(spec.model_dump(mode="json", by_alias=True, exclude_unset=True))
        ),
    )


def _by_objective(merge_study: MergeStudy) -> Iterator[tuple[str, Any]]:
    """Each objective that is a score, and the spec as if it were the first."""
    spec = merge_study.spec
    for objective in spec.objectives:
        if not objective.is_cost:
            yield objective.target, spec.model_copy(update={"objectives": (objective,)})


def _scored(merge_study: MergeStudy, best: FrozenTrial) -> list[FinalScores]:
    """All models with scores, the result last, which has at least that of the search."""
    name = f"trial {best.number}"
    found = stored_final_scores(merge_study, best) or [FinalScores(name, {})]
    *others, own = found
    return [*others, FinalScores(name, {"search": result_of(best).scores, **own.scores})]


def _tiles(
    merge_study: MergeStudy, best: FrozenTrial, rows: Sequence[FinalScores]
) -> list[tuple[str, str, str]]:
    """The numbers that matter most: what, how much, of what."""
    spec, target = merge_study.spec, merge_study.spec.objective.target
    found = []
    if not spec.objective.is_cost:
        metric, sign = spec.metric(target), spec.objective.sign
        split = next(s for s in reversed(SPLITS) if target in rows[-1].scores.get(s, {}))
        scored = {r.name: s for r in rows if (s := r.scores.get(split, {}).get(target))}

        def tile(what: str, name: str) -> tuple[str, str, str]:
            value, _, interval = show_score(scored[name], metric).partition(" ")
            return what, value, interval.strip("()")

        found.append(tile(f"result on {split}", rows[-1].name))
        sources = [name for name in spec.models if name in scored]
        if sources:
            best_source = max(sources, key=lambda n: sign * scored[n].value)
            found.append(tile(f"best source, {best_source}", best_source))
        baseline = merge_study.space.baseline_name
        if baseline in scored:
            found.append(tile(baseline, baseline))
    found += [
        (f"{spoken(objective.target, spec)} of it", show_value(spec, best, objective), "")
        for objective in spec.objectives
        if objective.is_cost
    ]
    trials = merge_study.read()
    failed = sum(ERROR in trial.user_attrs for trial in trials.counted)
    notes = [
        f"{n} {what}" for n, what in ((failed, "failed"), (len(trials.stopped), "stopped early"))
    ]
    found.append(("trials", f"{trials.finished:,}", ", ".join(x for x in notes if x[0] != "0")))
    return found


def _values(merge_study: MergeStudy, best: FrozenTrial) -> Rows | None:
    """The merge's parameters: a row for each model and group of layers, unless those are many."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for name, value in merge_values(merge_study, best.params).items():
        owner, kind, group = name.split(".", 2)
        number = f"{value:.3f}" if isinstance(value, float) else str(value)
        cells.setdefault((owner, group), {})[kind] = number
    if not 0 < len(cells) <= _ROWS:
        return None
    kinds = list(dict.fromkeys(kind for row in cells.values() for kind in row))
    groups = {group for _, group in cells}
    heads = ("model", "layers") if len(groups) > 1 else ("model",)
    rows = (
        (*((owner, group)[: len(heads)]), *(row.get(kind, "") for kind in kinds))
        for (owner, group), row in cells.items()
    )
    return Rows((*heads, *kinds), tuple(rows))


def _about(recipe: Recipe) -> list[tuple[str, str]]:
    """What a recipe is, and how it is repeated: commands, each with what it does."""
    if isinstance(recipe, MergeRecipe):
        program = family_of_host(recipe.host).mergekit_program
        command, *remarks = recipe.how_to_repeat(RECIPE_FILE, program)
        done = "merges the same models by mergekit, with this in the file:"
        return [(command, done), *(("", remark) for remark in remarks)]
    if isinstance(recipe, AdapterRecipe):
        return [("", f"The adapters are merged by {recipe.method}, as peft does it:")]
    told = "The layers in the order in which a token passes them, with what the input of each is"
    return [("", f"{told} multiplied by:")]


def _test_figure(merge_study: MergeStudy, figure: Any | None, result: str) -> Figures:
    objective = merge_study.spec.objective
    if figure is None:
        return []
    colors = [LOUD if name == result else QUIET for name in figure.data[0].x]
    figure.update_traces(marker={"color": colors}, error_y={"color": INK, "thickness": 1.5})
    in_percent(figure, merge_study.spec.metric(objective.target))
    return [(f"{objective.target} on test, with 95% intervals", figure_html(figure))]


def _recipe_figures(
    merge_study: MergeStudy, figures: Mapping[str, Any], *, has_table: bool
) -> Figures:
    titles = {
        "path": "The path of a token through the layers; size: scale of the layer's input",
        "weights": "The merge's values",
        "spread": "The same values in the best trials: a box that fills its range tells nothing",
    }
    found = dict(figures)
    if has_table:
        found.pop("weights", None)
    if len(merge_study.ranked()) < _BOXES:
        found.pop("spread", None)
    return [(titles[name], figure_html(found[name])) for name in titles if name in found]


def _search_figures(
    merge_study: MergeStudy, best: FrozenTrial, rows: Sequence[FinalScores]
) -> Iterator[tuple[str, Markup]]:
    spec, trials = merge_study.spec, merge_study.read()
    target = spec.objective.target
    others = {row.name: row.scores.get("search", {}).get(target) for row in rows[:-1]}
    known = (*spec.models, merge_study.space.baseline_name)
    lines = {name: score.value for name, score in others.items() if score and name in known}
    metrics = [None if o.is_cost else spec.metric(o.target) for o in spec.objectives]
    yield (
        f"Every trial's {target}, and the best so far",
        figure_html(history_figure(trials, best, metrics[0], lines)),
    )
    if len(spec.objectives) == 2:
        yield "Both objectives of every trial", figure_html(front_figure(trials, best, metrics))
    if found := importances(trials):
        yield (
            "How much each parameter decides whether a trial is good (PED-ANOVA)",
            figure_html(importance_figure(found)),
        )


def _answers(merge_study: MergeStudy, best: FrozenTrial) -> list[Asked]:
    """What the sources and the result have answered, as far as it is kept and can be read."""
    try:
        asked = answers_of_study(merge_study, [best], None, lambda _: None)
    except EvomergeError:  # a page without them is better than none
        return []
    # Of pictures and of scores alone there is nothing to read.
    return [p for p in asked if any(found.answer is not None for found in p.answers.values())]


def _sheets(merge_study: MergeStudy, best: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {
            "task": sheet.task,
            "split": sheet.split,
            "prompts": sheet.prompts,
            "png": base64.b64encode(sheet.png).decode(),
        }
        for sheet in contact_sheets(merge_study, best)
    ]


def _lineage(merge_study: MergeStudy) -> Rows:
    fingerprints: Mapping[str, Any] = merge_study.attributes()[FINGERPRINTS]
    rows = (
        (key.removeprefix("models."), shown_model(model), fingerprints[key]["weights"])
        for key, model in merge_study.spec.model_ids().items()
    )
    return Rows(("role", "model", "SHA-256 of its weights"), tuple(rows))
