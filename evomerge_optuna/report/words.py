"""What a study searched, and what its result is, in words that need no knowledge of the spec."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import mean

from optuna.trial import FrozenTrial

from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spaces.adapter import AdapterSpace
from evomerge_optuna.spaces.joint import JointSpace
from evomerge_optuna.spaces.places import OF_THE_MERGE
from evomerge_optuna.spaces.searched import METHOD, SearchedSpace
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spaces.stack import StackSpace
from evomerge_optuna.spec import MERGED, SPLITS, Choices, Dimension, ImageTask, StudySpec
from evomerge_optuna.spec.samplers import SAMPLERS
from evomerge_optuna.study.studies import MergeStudy, recipe_of

_PART = "which models take part"
_OF_STACKS = {
    "layer": "which layers a token passes through",
    "scale": "what the input of a layer is multiplied by",
    "theta": "the network that gives the scales of the layers' inputs",
}


def search_in_words(merge_study: MergeStudy) -> dict[str, list[str]]:
    """What was searched, among what, how, and for what: sentences under headings."""
    spec, trials = merge_study.spec, merge_study.read()
    bounds = [f"with {constraint}" for constraint in spec.constraints]
    given = len(trials.baselines)
    return {
        "Goal": [" ".join(filter(None, [goals(spec), listed(bounds), "on the search split"]))],
        "Candidates": [_candidates(spec, merge_study.space)],
        "Searched": list(_ranges(merge_study.space.ranges())),
        "Sampler": [
            f"{_sampler(spec)}, {trials.finished} trials"
            + (f", {given} of them points that the study began with" if given else "")
        ],
        "Tasks": [_task(merge_study, name) for name in spec.tasks],
    }


def goals(spec: StudySpec) -> str:
    """What is sought, as 'the highest accuracy on math and the fewest layers'."""
    most = {(False, 1): "the highest", (False, -1): "the lowest", (True, 1): "the most"}
    return listed(
        [
            f"{most.get((o.is_cost, o.sign), 'the fewest')} {spoken(o.target, spec)}"
            for o in spec.objectives
        ]
    )


def _candidates(spec: StudySpec, space: SearchSpace) -> str:
    models = listed(list(spec.models))
    if isinstance(space, SearchedSpace):
        what = "adapters merged of" if isinstance(space, AdapterSpace) else "merges of"
        return f"{what} {models}, by {spec.method}"
    stack = space.stack if isinstance(space, JointSpace) else space
    stacked = listed(list(stack.models)) if isinstance(stack, StackSpace) else models
    what = f"stacks of layers of {stacked}"
    return f"{what}; {MERGED} is a merge of {models}" if MERGED in stacked else what


def _sampler(spec: StudySpec) -> str:
    row = SAMPLERS.get(str(spec.sampler.name))
    return f"{row.title if row else spec.sampler.name} with seed {spec.sampler.seed}"


def _task(merge_study: MergeStudy, name: str) -> str:
    task = merge_study.spec.tasks[name]
    about = (type(task).__doc__ or task.type).strip().splitlines()[0].split(": ")[-1].rstrip(".")
    counts = _problems(merge_study, name)
    shown = [f"{counts[split]} problems of {split}" for split in SPLITS if split in counts]
    return f"{name}: {about[:1].lower()}{about[1:]}{'; ' if shown else ''}{', '.join(shown)}"


def _problems(merge_study: MergeStudy, name: str) -> Mapping[str, int]:
    """How many problems of each split were scored, as far as scores tell it."""
    from evomerge_optuna.results.chosen_trial import chosen_trial
    from evomerge_optuna.results.final_scores import stored_final_scores
    from evomerge_optuna.study.result import result_of

    best = chosen_trial(merge_study)
    if best is None:
        return {}
    rows = stored_final_scores(merge_study, best)
    by_split = {"search": result_of(best).scores, **(rows[-1].scores if rows else {})}
    return {
        split: score.n
        for split, scores in by_split.items()
        for target, score in reversed(scores.items())
        if target.partition(".")[0] == name
    }


def _ranges(ranges: Mapping[str, Dimension]) -> Iterator[str]:
    """One line for all parameters of a kind that have the same range."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, dimension in ranges.items():
        owner, _, rest = name.partition(".")
        if rest[:1].isdigit():  # a merge's parameters are named, those of a stack are counted
            found[_OF_STACKS[owner], ""].append(OF_THE_MERGE)
        elif name == METHOD:
            found["the merge method", _choices(dimension)].append(owner)
        elif rest == "include":
            found[_PART, ""].append(owner)
        else:
            found[f"the {rest.partition('.')[0]}", _choices(dimension)].append(owner)
    for (what, values), owners in found.items():
        names = [name for name in dict.fromkeys(owners) if name != OF_THE_MERGE]
        names = [] if what == _PART else names
        whose = f" of {listed(names)}" if names else ""
        count = f" ({len(owners)} parameters)" if len(owners) > 1 else ""
        yield f"{what}{whose}{values}{count}"


def _choices(dimension: Dimension) -> str:
    if isinstance(dimension, Choices):
        return f": {listed([str(value) for value in dimension.values], 'or')}"
    return f", from {dimension.low:g} to {dimension.high:g}"


def recipe_in_words(merge_study: MergeStudy, trial: FrozenTrial) -> list[str]:
    """Sentences about a trial's recipe: which model weighs most, which layers are where."""
    recipe = recipe_of(trial)
    return [*_weights(merge_study, trial.params), *_path(merge_study.spec, recipe)]


def merge_values(merge_study: MergeStudy, values: Values) -> Values:
    """Every parameter of the merge in a recipe, those too that the spec fixes."""
    space = merge_study.space
    merge = space.merge if isinstance(space, JointSpace) else space
    return merge.values(values) if isinstance(merge, SearchedSpace) else {}


def _weights(merge_study: MergeStudy, values: Values) -> Iterator[str]:
    if method := values.get(METHOD):
        yield f"The merge method is {method}."
    weights: dict[str, list[float]] = defaultdict(list)
    for name, value in merge_values(merge_study, values).items():
        owner, _, rest = name.partition(".")
        if rest.startswith("weight.") and isinstance(value, int | float):
            weights[owner].append(value)
    ranked = sorted(weights, key=lambda owner: -mean(weights[owner]))
    if len(ranked) > 1:
        shown = [f"{owner} ({_span(weights[owner])})" for owner in ranked]
        yield f"The weights, the largest first: {listed(shown)}."
    left_out = [alias for alias in merge_study.spec.models if weights and alias not in weights]
    if left_out:
        yield f"Left out: {listed(left_out)}."


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"


def _path(spec: StudySpec, recipe: Recipe) -> Iterator[str]:
    if not isinstance(recipe, StackRecipe):
        return
    aliases = {model: alias for alias, model in spec.models.items()}
    parts = [_layers(aliases, run) for run in _runs(recipe.steps)]
    yield f"A token passes {len(recipe.steps)} layers: {', then '.join(parts)}."
    scales = [step.scale for step in recipe.steps]
    if any(scale != 1 for scale in scales):
        yield f"The inputs of the layers are multiplied by {_span(scales)}."


def _runs(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Parts of the path in which one layer of a model follows the other."""
    places = enumerate(steps)
    for _, run in groupby(places, key=lambda place: (place[1].model, place[1].layer - place[0])):
        yield [step for _, step in run]


def _layers(aliases: Mapping[str, str], run: Sequence[Step]) -> str:
    first, last = run[0], run[-1]
    which = f"layer {first.layer}" if len(run) == 1 else f"layers {first.layer} to {last.layer}"
    return f"{which} of {aliases.get(first.model, first.model)}"


def spoken(target: str, spec: StudySpec) -> str:
    """`math.accuracy` as 'accuracy on math', and a cost as it is."""
    task, _, metric = target.partition(".")
    if target == "flops_per_token":
        return "operations a token"
    if not metric:
        return target
    if isinstance(spec.tasks[task], ImageTask):  # whose user names what is measured
        return f"score '{metric}' on {task}"
    return f"{metric.replace('_', ' ')} on {task}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
