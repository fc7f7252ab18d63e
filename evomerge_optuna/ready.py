"""A study ready to run: made from its spec or opened by its name, its models and files in place."""

from collections.abc import Callable
from contextlib import suppress

from evomerge_optuna.errors import StudyExistsError
from evomerge_optuna.evaluation.user_code import allow, code_of
from evomerge_optuna.models.catalog import check_exists
from evomerge_optuna.report.dashboard import describe_study
from evomerge_optuna.search.samplers import check_sampler
from evomerge_optuna.search.user_sampler import rehearse
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.creation import create_study, with_merged
from evomerge_optuna.study.studies import MergeStudy, continue_with, exists, open_study
from evomerge_optuna.study.unchanged import check_unchanged

Say = Callable[[str], None]


def make_study(store: Store, spec: StudySpec, say: Say) -> MergeStudy:
    """Makes the study of a spec that the user has written; see `create_study`."""
    allow_code_of(spec)
    _check_models(with_merged(store, spec))
    if remark := check_sampler(spec.sampler):
        say(remark)
    created = create_study(store, spec, say=say, check=rehearse)
    describe_study(created)
    return created


def ready_study(
    store: Store, study: StudySpec | str, say: Say, allow_code: bool = False
) -> MergeStudy:
    """The study of a spec, which is made unless it exists, or a stored one by its name.

    One that exists is checked to be as it began.

    Args:
        study: a spec that the user has written, whose code may run, or a name.
        allow_code: run the code that a stored study names, too.

    Raises:
        SpecError: models or data do not fit.
        StudyChangedError: the spec, a file or a prompt is not what the study began with.
    """
    if isinstance(study, str):
        opened = open_study(store, study)
    else:
        allow_code_of(study)
        if not exists(store, study.study):
            with suppress(StudyExistsError):  # made meanwhile by another worker
                return make_study(store, study, say)
        opened = continue_with(open_study(store, study.study), study)
    _check_models(opened.spec)
    if allow_code:
        allow_code_of(opened.spec)
    check_unchanged(opened, say)
    return opened


def allow_code_of(spec: StudySpec) -> None:
    """For a spec that the user has written, or a stored one that the user vouches for."""
    allow(code_of(spec))


def _check_models(spec: StudySpec) -> None:
    """Names a missing model at once."""
    for key, model in spec.model_ids().items():
        check_exists(model, key)
