"""The model card of an export: Hugging Face front matter, scores, recipe and lineage."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from evomerge_optuna.families import family_of_host
from evomerge_optuna.methods import METHODS
from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.card_metadata import card_metadata, evaluation_results
from evomerge_optuna.report.gap import gap_text
from evomerge_optuna.report.markdown import objectives, table
from evomerge_optuna.report.numbers import show_score, worth_showing
from evomerge_optuna.report.sheets import Sheet
from evomerge_optuna.results.final_scores import FinalScores, stored_final_scores
from evomerge_optuna.spec import SPLITS, AdapterStudySpec, MergeSearchSpec, StudySpec
from evomerge_optuna.study.result import result_of
from evomerge_optuna.study.schema import FINGERPRINTS, VERSIONS
from evomerge_optuna.study.studies import MergeStudy, recipe_of

RECIPE_FILE = "mergekit_config.yml"
_TEXTS = ("prompt", "system", "stop", "question")  # of a task; they may begin with a slash
# What the hub reads of the card of an adapter.
_OF_ADAPTERS = {"base_model_relation": "adapter", "library_name": "peft"}


def card_picture(sheet: Sheet) -> str:
    """The file of a contact sheet beside the card."""
    return f"pictures-{sheet.task}.png"


def model_card(
    merge_study: MergeStudy,
    trial: FrozenTrial,
    digest: str,
    remarks: Sequence[str] = (),
    sheets: Sequence[Sheet] = (),
    *,
    merged: bool = False,
) -> str:
    """The README.md of an exported checkpoint.

    Args:
        remarks: why plain mergekit does not make the same model of the recipe; of an adapter its
            rank.
        sheets: contact sheets, whose files lie beside it.
        merged: an adapter is merged into its base model.
    """
    recipe = recipe_of(trial)
    spec = of_recipe(merge_study.spec, recipe)
    bases, own = list(spec.model_ids().values()), dict[str, str]()
    if isinstance(recipe, AdapterRecipe) and not merged:
        bases, own = [recipe.base_model], _OF_ADAPTERS
    results = evaluation_results(merge_study, trial)
    front = card_metadata(spec, bases, merge_study.name, results) | own
    if isinstance(recipe, AdapterRecipe):
        front["tags"].remove("mergekit")
    versions = merge_study.attributes()[VERSIONS]
    return f"""---
{to_yaml(front)}---

# {merge_study.name}, trial {trial.number}

Made of {_listed(spec)} ({spec.method}){_kept(spec)}, found by
evomerge-optuna {versions["evomerge-optuna"]} in trial {trial.number} of {merge_study.finished()}
of the study `{merge_study.name}` ({objectives(spec)}).

## Scores

With 95% intervals. The search saw the search split, so its score there flatters the model.
{_day(merge_study)}
{_score_table(merge_study, trial)}
{_pictures(sheets)}
## Lineage

{_lineage(merge_study, spec)}

SHA-256, as scored: `{digest}`

## Recipe

{_how_to_repeat(recipe, versions, remarks)}
"""


def _pictures(sheets: Sequence[Sheet]) -> str:
    if not sheets:
        return ""
    shown = [f"![{sheet.task}]({card_picture(sheet)})\n\n{sheet.caption()}\n" for sheet in sheets]
    return "\n".join(["", "## Pictures", "", *shown])


def _how_to_repeat(recipe: Recipe, versions: dict[str, str], remarks: Sequence[str]) -> str:
    libraries = ("peft" if isinstance(recipe, AdapterRecipe) else "mergekit", "torch")
    made_with = ", ".join(f"{name} {versions[name]}" for name in libraries if name in versions)
    if isinstance(recipe, StackRecipe):
        return (
            "The layers in the order in which a token passes them, with what the residual stream "
            f"is multiplied by before each. The scales are folded into the weights ({made_with}).\n"
            f"\n```yaml\n{shown_recipe(recipe)}```"
        )
    if isinstance(recipe, AdapterRecipe):
        like = "" if recipe.method == "lorahub" else " as peft's `add_weighted_adapter` does"
        return (
            f"The adapters are merged by `{recipe.method}`{like} "
            f"({made_with}), every group of modules with its own values. The result has "
            f"{remarks[0]}.\n\n```yaml\n{shown_recipe(recipe)}```"
        )
    family = family_of_host(recipe.host)
    command, *others = recipe.how_to_repeat(RECIPE_FILE, family.mergekit_program)
    what = f"writes the {family.merged_part}"
    if remarks:
        what = "merges the same models, but writes another"
    how = " ".join([f"`{command}` {what} ({made_with}).", *others, *remarks])
    return f"{how}\n\n```yaml\n{shown_recipe(recipe)}```"


def of_recipe(spec: StudySpec, recipe: Recipe) -> StudySpec:
    """The spec with the method and the source models of this recipe, where they are searched."""
    if isinstance(recipe, AdapterRecipe):
        models = {alias: m for alias, m in spec.models.items() if m in recipe.adapters}
        assert isinstance(spec, AdapterStudySpec)
        own = spec.merge.model_copy(update={"method": recipe.method})
        return spec.model_copy(update={"models": models, "merge": own})
    if not isinstance(spec, MergeSearchSpec):
        return spec
    merge = recipe if isinstance(recipe, MergeRecipe) else next(iter(recipe.merges.values()))
    method, used = merge.configuration["merge_method"], {*recipe.models(), *merge.models()}
    models = {alias: m for alias, m in spec.models.items() if m in used or m == spec.host}
    row = spec.merge.model_copy(update={"method": method}) if method in METHODS else spec.merge
    return spec.model_copy(update={"merge": row, "models": models or spec.models})


def _score_table(merge_study: MergeStudy, trial: FrozenTrial) -> str:
    """Every stored score of this trial; its search score is always there."""
    spec = merge_study.spec
    final = {row.name: row.scores for row in stored_final_scores(merge_study, trial)}
    own = final.get(f"trial {trial.number}", {})
    by_split = {"search": result_of(trial).scores, **own}
    rows = [
        [f"`{target}`", split, str(score.n), show_score(score, spec.metric(target))]
        for split in SPLITS
        for target, score in worth_showing(by_split.get(split, {})).items()
    ]
    shown = table(["metric", "split", "n", "score"], rows)
    if "test" in by_split:
        row = FinalScores(f"trial {trial.number}", by_split)
        gap = gap_text(spec.objective, spec.metric(spec.objective.target), row)
        return f"{shown}\n\n{gap}" if gap else shown
    command = f"evomerge-optuna study test {merge_study.quoted_name}"
    return f"{shown}\n\nNot scored on test; `{command}` does."


def _lineage(merge_study: MergeStudy, spec: StudySpec) -> str:
    fingerprints = merge_study.attributes()[FINGERPRINTS]
    return table(
        ["role", "model", "weights (sha256)"],
        (
            [key, shown_model(model), f"`{fingerprints[key]['weights'][:16]}`"]
            for key, model in spec.model_ids().items()
        ),
    )


def _day(merge_study: MergeStudy) -> str:
    """What chat templates said in the prompts, where there are any."""
    chats = any(getattr(task, "chat", False) for task in merge_study.spec.tasks.values())
    if not chats or merge_study.day is None:
        return ""
    return f"Where a chat template tells the day, it told {merge_study.day}.\n"


def _kept(spec: StudySpec) -> str:
    """What the merge keeps of its host."""
    if spec.host is None:
        return ""
    kept = family_of_host(spec.host).kept_part
    return f";\nits {kept} are those of {shown_model(spec.host)}, bit for bit"


def _listed(spec: StudySpec) -> str:
    return ", ".join(shown_model(model) for model in spec.models.values())


def shown_model(model: str) -> str:
    """Hub ids and zoo names as they are; of a local path the last folder, not the whole disk."""
    parts = re.split(r"(\+|(?<=\.safetensors)@)", model)
    return "".join(Path(part).name if Path(part).is_absolute() else part for part in parts)


def shown_recipe(recipe: Recipe) -> str:
    """A recipe as YAML that names its models as `shown_model` does."""
    shown = recipe.located(shown_model)
    if isinstance(recipe, StackRecipe):
        merges = {name: merge.located(shown_model) for name, merge in recipe.merges.items()}
        shown = shown.model_copy(update={"merges": merges})
    return shown.to_yaml()


def without_places(part: Any) -> Any:
    """A spec or recipe without where files lie on this machine, as it can be sent."""
    if isinstance(part, dict):
        texts = _TEXTS if "type" in part else ()
        return {
            without_places(key): value if key in texts else without_places(value)
            for key, value in part.items()
        }
    if isinstance(part, list):
        return [without_places(value) for value in part]
    is_place = isinstance(part, str) and re.match(r"/|\S+\+/", part) is not None
    return shown_model(part) if is_place else part
