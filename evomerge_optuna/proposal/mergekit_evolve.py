"""A configuration of mergekit-evolve as a spec, with what of it has no counterpart.

What a configuration means is what `mergekit.evo.config` and `mergekit.evo.genome` make of it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.methods import METHODS
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.proposal.draft import Draft
from evomerge_optuna.proposal.evolve_tasks import Measured, measured
from evomerge_optuna.proposal.names import alias, seen_from

if TYPE_CHECKING:
    from mergekit.common import ModelReference
    from mergekit.evo.config import EvolMergeConfiguration
    from mergekit.evo.genome import ModelGenomeDefinition

_TRIALS = 100  # what mergekit-evolve runs unless told otherwise
_ALWAYS = {"dtype": "bfloat16", "int8_mask": True}  # whatever the configuration says
Say = Callable[[str], None]


@dataclass
class _Written:
    """A merge as it is translated, part by part.

    Attributes:
        lost: lines on what has no counterpart.
    """

    base: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    merge: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


def imported(
    content: Mapping[str, Any], file: str, study: str, folder: Path, include_path: str | None
) -> tuple[Draft, list[str]]:
    """The spec of a configuration, and a line for each thing that has no counterpart.

    Args:
        content: of the configuration.
        file: where it was read, for messages.
        study: the name of the study.
        folder: that of the spec, to which its paths are relative.
        include_path: a folder with tasks of lm-evaluation-harness.

    Raises:
        SpecError: it is no configuration of mergekit-evolve, or nothing of it could be searched.
    """
    configuration = _parsed(content, file)
    written = _Written(lost=list(_ignored(content, configuration)))
    _translate_genome(configuration.genome, written, folder)
    has_template = _chats(configuration, written)
    include = None if include_path is None else seen_from(folder, include_path)
    found = measured(configuration, has_template, include, file)
    written.lost += [*_lost(configuration), *found.lost]
    several = len(found.objectives) > 1
    sampler: dict[str, Any] = {"name": "auto" if several else "cmaes", "seed": 0}
    whole: dict[str, Any] = {
        "study": study,
        "stage": "ps",
        **({"base_model": written.base} if written.base else {}),
        "models": written.models,
        "merge": written.merge,
        "sampler": sampler,
        "trials": _TRIALS,
        "tasks": found.tasks,
        "objectives": found.objectives,
    }
    return Draft(whole, tuple(_head(file, written.lost)), _notes(written, found), found.offers), (
        written.lost
    )


def _parsed(content: Mapping[str, Any], file: str) -> "EvolMergeConfiguration":
    from mergekit.evo.config import EvolMergeConfiguration
    from pydantic import ValidationError

    try:
        return EvolMergeConfiguration.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        message = first["msg"].removeprefix("Assertion failed, ")
        raise SpecError(
            f"{file}: {place.lstrip('.')}: {one_line(message)}; it is to be a configuration that "
            "mergekit-evolve runs"
        ) from error


def _ignored(content: Mapping[str, Any], configuration: "EvolMergeConfiguration") -> Iterator[str]:
    """Keys that mergekit-evolve passes over."""
    parts = [("", content, configuration), ("genome.", content["genome"], configuration.genome)]
    for number, task in enumerate(content["tasks"]):
        if isinstance(task, Mapping):
            parts.append((f"tasks[{number}].", task, configuration.tasks[number]))
    for where, given, kind in parts:
        for key in given:
            if key not in type(kind).model_fields and given[key] != _ALWAYS.get(key):
                what = f"; it merges with {_ALWAYS[key]}" if key in _ALWAYS else ""
                yield f"{where}{key}: mergekit-evolve has no such key, and passes over it{what}"


def _translate_genome(genome: "ModelGenomeDefinition", written: _Written, folder: Path) -> None:
    names = [_name(model, folder, f"genome.models[{n}]") for n, model in enumerate(genome.models)]
    base = (
        None if genome.base_model is None else _name(genome.base_model, folder, "genome.base_model")
    )
    if len(set(names)) < len(names):
        raise SpecError("genome.models: the same model is named twice; remove one")
    if genome.merge_method == "slerp":
        names, base = _slerp(names, base, written)
    elif base is not None and genome.merge_method == "linear":
        base = _base_of_linear(base, genome, written)
    elif base in names:
        names = [name for name in names if name != base]
        written.lost.append(
            f"genome.models: {base} is the base model, too, from which it differs by nothing; it "
            "is left out of models"
        )
    for name in names:
        written.models[alias(name, written.models)] = name
    written.base = base
    _parameters(genome, written)
    _groups(genome, written)
    _options(genome, written)
    if genome.tokenizer_source is not None:
        written.merge["tokenizer_source"] = _tokenizer_source(genome, written, folder)


def _name(model: "ModelReference", folder: Path, where: str) -> str:
    if model.override_architecture is not None:
        raise SpecError(
            f"{where}: override_architecture takes a model for what it is not; this program has no "
            "such thing"
        )
    return seen_from(folder, str(model))


def _slerp(names: list[str], base: str | None, written: _Written) -> tuple[list[str], str | None]:
    """The source models, and the model that is gone from."""
    if len(names) < 2:
        raise SpecError("genome.models: slerp needs two models; name another one")
    if base is not None:
        written.lost.append("genome.base_model: slerp merges the models alone, so it is left out")
    if len(names) == 2:
        return names[1:], names[0]
    written.lost.append(
        f"genome.merge_method: slerp picks two of the {len(names)} models in each group of layers, "
        "which has no counterpart; written as multislerp, which merges all of them"
    )
    return names, None


def _base_of_linear(base: str, genome: "ModelGenomeDefinition", written: _Written) -> str | None:
    if genome.tokenizer_source == "base":
        return base
    written.lost.append("genome.base_model: linear merges the models alone, so it is left out")
    return None


def _parameters(genome: "ModelGenomeDefinition", written: _Written) -> None:
    method = genome.merge_method
    if method == "slerp":
        method = "multislerp" if written.base is None else "slerp"
    written.merge["method"] = method
    low = -1 if genome.allow_negative_weights and method != "slerp" else 0
    for parameter in METHODS[method].parameters:
        is_density = parameter.name == "density"
        written.merge[parameter.name] = [0 if is_density else low, 1]
        if parameter.name == "weight":
            written.notes["merge.weight"] = "mergekit-evolve has no bounds; widen it at will"


def _groups(genome: "ModelGenomeDefinition", written: _Written) -> None:
    size = genome.layer_granularity
    if size > 0 and genome.smooth:
        layers = _layers(str(genome.models[0]))
        if layers % size:
            raise SpecError(
                f"genome.layer_granularity: {size} does not divide the models' {layers} layers"
            )
        if layers > size:
            written.merge["interpolate"] = layers // size
            written.notes["merge.interpolate"] = (
                f"smooth, with a granularity of {size} in {layers} layers"
            )
    elif size > 0:
        written.merge["layer_group_size"] = size
    elif genome.smooth:
        written.lost.append(
            "genome.smooth: without layer_granularity there is one value for all layers, and "
            "nothing to be smooth; left out"
        )
    if genome.filters:
        written.merge["layer_groups"] = list(genome.filters)


def _layers(model: str) -> int:
    try:
        return int(
            OpenedModel(model, "genome.models[0]").config.get_text_config().num_hidden_layers
        )
    except SpecError as error:
        raise SpecError(f"genome.smooth: how many layers the models have: {error}") from error


def _options(genome: "ModelGenomeDefinition", written: _Written) -> None:
    known = METHODS[written.merge["method"]].fixed
    if "normalize" in known:
        default = genome.merge_method in ("ties", "dare_ties", "linear")
        written.merge["normalize"] = default if genome.normalize is None else genome.normalize
    elif genome.normalize is not None:
        written.lost.append(
            f"genome.normalize: {written.merge['method']} has no such option; left out"
        )
    if "int8_mask" in known:
        written.merge["int8_mask"] = _ALWAYS["int8_mask"]
    written.merge["dtype"] = _ALWAYS["dtype"]
    written.notes["merge.dtype"] = "in which mergekit-evolve merges"


def _tokenizer_source(genome: "ModelGenomeDefinition", written: _Written, folder: Path) -> str:
    source = str(genome.tokenizer_source)
    if source in ("base", "union"):
        return source
    place = seen_from(folder, source)
    if place == written.base:
        return "base"
    found = next((alias for alias, model in written.models.items() if model == place), None)
    if found is None:
        raise SpecError(
            f"genome.tokenizer_source: {source} is none of the models; name one of them, base or "
            "union"
        )
    return found


def _chats(configuration: "EvolMergeConfiguration", written: _Written) -> bool:
    """Are prompts chats? Says in the merge whose template they have where it is not clear."""
    if not configuration.apply_chat_template:
        return False
    genome = configuration.genome
    owner = genome.base_model or genome.models[0]
    has = {str(model): _has_template(str(model)) for model in (owner, *genome.models)}
    if has[str(owner)] in (True, None):  # None: it cannot be read here
        return True
    if any(has.values()):
        written.merge["chat_template"] = "auto"
        written.notes["merge.chat_template"] = f"{owner} has none"
        return True
    written.lost.append(
        "apply_chat_template: no tokenizer of the models has a chat template, so prompts are plain"
    )
    return False


def _has_template(model: str) -> bool | None:
    try:
        return bool(getattr(OpenedModel(model).tokenizer, "chat_template", None))
    except SpecError:
        return None


def _lost(configuration: "EvolMergeConfiguration") -> Iterator[str]:
    if configuration.shuffle:
        yield "shuffle: documents keep the order of their data set"
    if configuration.random_init:
        yield (
            "random_init: the search begins with the points that people try by hand; write "
            "starts: false to leave them out"
        )
    if configuration.apply_chat_template and not configuration.fewshot_as_multiturn:
        yield "fewshot_as_multiturn: solved examples of a chat are always turns of it"


def _head(file: str, lost: list[str]) -> Iterator[str]:
    yield f"What mergekit-evolve searched by {file}."
    if lost:
        yield "Of that this has no counterpart, or another one:"
        yield from (f"- {line}" for line in lost)


def _notes(written: _Written, found: Measured) -> dict[str, str]:
    return {
        **written.notes,
        **found.notes,
        "trials": "those of mergekit-evolve, unless --max-fevals says otherwise",
    }
