"""A study made from its spec, or opened by its name, with its models at hand."""

from collections.abc import Callable, Iterable
from contextlib import suppress

from evomerge_optuna.errors import StudyExistsError
from evomerge_optuna.evaluation.user_code import allow, code_of
from evomerge_optuna.models.catalog import check_exists
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study, with_merged
from evomerge_optuna.study.foreign import named
from evomerge_optuna.study.prompts import check_prompts_unchanged
from evomerge_optuna.study.studies import (
    MergeStudy,
    changed_versions,
    check_files_unchanged,
    continue_with,
    exists,
    open_study,
)

Say = Callable[[str], None]
TrainZoo = Callable[[Iterable[str]], object]  # those among these models that are of the zoo


def make_study(store: Store, spec: StudySpec, say: Say, train_zoo: TrainZoo) -> MergeStudy:
    """Makes the study of a spec that the user has written; see `create_study`."""
    allow_code_of(spec)
    prepare_models(with_merged(store, spec), train_zoo)
    created = create_study(store, spec, say=say)
    describe_study(created)
    return created


def make_or_continue(store: Store, spec: StudySpec, say: Say, train_zoo: TrainZoo) -> MergeStudy:
    """The study of a spec that the user has written: made, or gone on with."""
    allow_code_of(spec)
    if not exists(store, spec.study):
        with suppress(StudyExistsError):  # made meanwhile by another worker
            return make_study(store, spec, say, train_zoo)
    opened = continue_with(open_study(store, spec.study), spec)
    prepare_models(opened.spec, train_zoo)
    return opened


def open_with_models(store: Store, name: str, train_zoo: TrainZoo) -> MergeStudy:
    """A stored study; code that it names is not allowed by that."""
    opened = open_study(store, name)
    prepare_models(opened.spec, train_zoo)
    return opened


def allow_code_of(spec: StudySpec) -> None:
    """For a spec that the user has written, or a stored one that the user vouches for."""
    allow(code_of(spec))


def prepare_models(spec: StudySpec, train_zoo: TrainZoo) -> None:
    """Names a missing model at once; trains the zoo where it is used."""
    models = spec.model_ids()
    for key, model in models.items():
        check_exists(model, key)
    train_zoo(models.values())


def check_unchanged(merge_study: MergeStudy, say: Say) -> None:
    """Before anything is scored: files must be those it began with, other versions are told.

    Raises:
        StudyChangedError: naming every model and data split that differs, or is read otherwise.
    """
    check_files_unchanged(merge_study)
    if foreign := named(merge_study.read().foreign):
        say(foreign)
    check_prompts_unchanged(merge_study)
    if changed := changed_versions(merge_study):
        say(
            f"Warning: other versions than when the study was created ({', '.join(changed)}); "
            "scores may differ in their last digits"
        )
