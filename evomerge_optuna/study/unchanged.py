"""A study goes on only as it began: with the same files, problems and prompts."""

from collections.abc import Callable
from dataclasses import asdict

from evomerge_optuna.errors import StudyChangedError
from evomerge_optuna.evaluation.data import fingerprint_data
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.evaluation.user_code import fingerprint_code
from evomerge_optuna.families.diffusion.lora import fingerprint_lora
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.models.sources.base import Source
from evomerge_optuna.spec import AdapterStudySpec, LMEvalTask, StudySpec
from evomerge_optuna.study.foreign import named
from evomerge_optuna.study.prompts import prompts_of
from evomerge_optuna.study.schema import DATA, FINGERPRINTS, PROMPTS, VERSIONS
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.versions import engine_versions


def check_unchanged(merge_study: MergeStudy, say: Callable[[str], None]) -> None:
    """Checks that models, data and prompts are those that the study began with.

    Loads the problems of the study's tasks anew; see `MergeStudy.tasks`.

    Args:
        say: prints a line: trials of other programs, or other versions of packages.

    Raises:
        StudyChangedError: naming every model and data split that differs, or is read otherwise.
    """
    merge_study.tasks = runners(merge_study.spec.tasks)
    models = OpenedModels(merge_study.spec.model_ids())
    _check_files(merge_study, models)
    if foreign := named(merge_study.read().foreign):
        say(foreign)
    _check_prompts(merge_study, models)
    if changed := changed_versions(merge_study):
        say(
            f"Warning: other versions than when the study was created ({', '.join(changed)}); "
            "scores may differ in their last digits"
        )


def _check_files(stored: MergeStudy, models: OpenedModels) -> None:
    """Checks the files of the study's models, its problems and the code that it runs.

    Raises:
        StudyChangedError: naming every model and data split that differs.
    """
    before, now = stored.attributes()[FINGERPRINTS], model_fingerprints(models)
    other = {key: parts for key, parts in now.items() if parts != before[key]}
    changed = [
        f"{key} ({models[key].name}): {part} sha256 {before[key][part][:12]} -> {digest[:12]}"
        for key, parts in other.items()
        for part, digest in parts.items()
        if digest != before[key][part]
    ]
    cures = {models[key].source.cure for key in other}
    data_before = stored.attributes()[DATA]
    code = fingerprint_code(stored.spec) | fingerprint_lora(stored.spec)
    data_now = code | fingerprint_data(stored.tasks)
    if data := [split for split in data_before if data_before[split] != data_now[split]]:
        changed += [
            f"{split}: sha256 {data_before[split][:12]} -> {data_now[split][:12]}" for split in data
        ]
        cures.add(Source.cure)
    if changed:
        raise StudyChangedError(
            f"study '{stored.name}' was begun with other files ({'; '.join(changed)}); "
            f"{'; '.join(sorted(cures))}, or give the study a new name"
        )


def _check_prompts(stored: MergeStudy, models: OpenedModels) -> None:
    """Checks what the models are given; call it once the files are known to be the same.

    Raises:
        StudyChangedError: naming every split that is read otherwise.
    """
    before = stored.attributes().get(PROMPTS)
    if before is None:
        return  # of an earlier version
    now = prompts_of(stored.spec, stored.space, stored.tasks, models, stored.day)
    changed = [
        f"{place}: sha256 {before[place][:12]} -> {now[place][:12]}"
        for place in before
        if place in now and before[place] != now[place]
    ]
    if changed:
        versions = ", ".join(changed_versions(stored)) or "of the versions it was begun with"
        raise StudyChangedError(
            f"study '{stored.name}' was begun with other prompts ({'; '.join(changed)}), though "
            f"with the same files ({versions}); put the old versions back, or give the study a "
            "new name"
        )


def changed_versions(stored: MergeStudy) -> list[str]:
    """The packages that have another version than when the study was created."""
    before, now = stored.attributes()[VERSIONS], versions_of(stored.spec)
    known = [name for name in now if name in before]
    return [f"{name} {before[name]} -> {now[name]}" for name in known if before[name] != now[name]]


def model_fingerprints(models: OpenedModels) -> dict[str, dict[str, str]]:
    """Hashes of every model's files, by its key in the spec."""
    return {key: asdict(model.fingerprint) for key, model in models.items()}


def versions_of(spec: StudySpec) -> dict[str, str]:
    """The versions of the packages that decide a study's scores."""
    has_harness = any(isinstance(task, LMEvalTask) for task in spec.tasks.values())
    harness = ("lm-eval",) if has_harness else ()
    adapters = ("peft",) if isinstance(spec, AdapterStudySpec) else ()
    engine = spec.evaluation.row.package
    return engine_versions(*harness, *adapters, *([engine] if engine else []))
