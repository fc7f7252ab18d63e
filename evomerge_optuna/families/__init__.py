"""Families: the kinds of models, which of their tensors are merged, and how a merge is written.

A new family is a class of `base.Family` in files of its own, and its row in `FAMILIES`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.base import Architecture, Family, Loaded
from evomerge_optuna.families.causal_lm import CausalLM, is_causal_lm
from evomerge_optuna.families.diffusion.family import Diffusion
from evomerge_optuna.families.vision_language.family import VisionLanguage
from evomerge_optuna.models.ends import read_json
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.pipelines import PIPELINE, is_pipeline
from evomerge_optuna.spec import HOST_KEY, AdapterStudySpec, StudySpec

CAUSAL_LM = CausalLM()
FAMILIES: tuple[Family, ...] = (CAUSAL_LM, VisionLanguage(), Diffusion())


def family_of(model: OpenedModel) -> Family:
    """The family of a model.

    Raises:
        SpecError: the model's configuration cannot be read.
    """
    return _family_of_kind(model.kind)


def family_in(folder: Path) -> Family:
    """The family of a checkpoint in a local folder."""
    if is_pipeline(folder):
        return _family_of_kind(PIPELINE)
    return _family_of_kind(read_json(folder / "config.json").get("model_type", ""))


def family_of_host(host: str | None) -> Family:
    """The family of the recipes and studies that have this host.

    Raises:
        SpecError: the host's configuration cannot be read.
    """
    return CAUSAL_LM if host is None else family_of(OpenedModel(host))


def load_checkpoint(folder: Path, device: str, dtype: str | None = None) -> Loaded:
    """The model of a local checkpoint, ready to run; see `Family.load`."""
    return family_in(folder).load(folder, device, dtype)


def merged_folder(model: str, components: Sequence[str] = ()) -> Path:
    """A local folder with the part of a model that is merged.

    Args:
        model: the model's name.
        components: see `Family.merged_folder`.

    Raises:
        SpecError: the model cannot be had, or the part cannot be taken out.
    """
    folder = OpenedModel(model).folder
    return family_in(folder).merged_folder(folder, components)


def with_host(spec: StudySpec, models: Mapping[str, OpenedModel]) -> StudySpec:
    """The spec with the first model that keeps its unmerged part, unless it names one.

    Raises:
        SpecError: a model's configuration cannot be read.
    """
    if spec.host is not None:
        return spec
    for key, model in models.items():
        if family_of(model) is not CAUSAL_LM:
            return spec.with_host(key)
    return spec


def completed(spec: StudySpec, models: Mapping[str, OpenedModel]) -> StudySpec:
    """The spec with what its models decide where it says nothing: host, engine, groups of blocks.

    Raises:
        SpecError: a model's configuration cannot be read.
    """
    spec = with_host(spec, models)
    family = CAUSAL_LM if spec.host_key is None else family_of(models[spec.host_key])
    if "engine" not in spec.evaluation.model_fields_set:
        spec = spec.with_engine(family.engine)
    return family.completed(spec, models)


def check_models(spec: StudySpec, models: Mapping[str, OpenedModel]) -> Architecture:
    """Checks that every model exists and can be merged with the first one, and run here.

    Args:
        models: by their keys in the spec.

    Raises:
        SpecError: naming the model's key, what differs, and the cure.
    """
    for key, model in models.items():
        model.source.check(model.name, key)
    for key, model in models.items():
        _check_family(key, model)
    if spec.host_key is None:
        return CAUSAL_LM.check(spec, models)
    family = family_of(models[spec.host_key])
    if isinstance(spec, AdapterStudySpec):
        raise SpecError(
            f"merge.space: {spec.host_key} is a {family.name}, and adapters are merged for "
            "language models of text alone; leave merge.space out"
        )
    if family is CAUSAL_LM:
        hosts = _named("{} that can be merged, which are of type {}")
        raise SpecError(f"{HOST_KEY}: {spec.host_key} ({spec.host}) is none of the {hosts}")
    return family.check(spec, models)


def _family_of_kind(kind: str) -> Family:
    return next((family for family in FAMILIES if kind in family.kinds), CAUSAL_LM)


def _check_family(key: str, model: OpenedModel) -> None:
    if family_of(model) is not CAUSAL_LM or is_causal_lm(config := model.config):
        return
    raise SpecError(
        f"{key}: {', '.join(config.architectures or []) or config.model_type} is no causal "
        "language model of text alone; only such models can be merged, and "
        + _named("{} of type {}")
    )


def _named(words: str) -> str:
    """All families but the first, with their kinds."""
    return ", ".join(words.format(f"{f.name}s", ", ".join(f.kinds)) for f in FAMILIES if f.kinds)
