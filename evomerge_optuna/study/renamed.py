"""Studies that are renamed, or deleted, while something works on them.

optuna-dashboard renames a study by copying it under the new name, trials first, attributes last,
and then deletes the old one. From then on what asks for the old one or its trials gets a KeyError,
and what had read a row of it, and would change that row, an error of the database.
"""

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import IntegrityError

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.store.lock import hold
from evomerge_optuna.store.optuna_internals import require_study, study_id
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.schema import IDENTITY
from evomerge_optuna.study.studies import MergeStudy, open_study

_GONE = (KeyError, StorageInternalError, IntegrityError)  # or something else is wrong

Result = TypeVar("Result")


def identify(merge_study: MergeStudy) -> str:
    """What the study has under every name; given to it, if an older version has made it."""
    if merge_study.identity is not None:
        return merge_study.identity
    with hold(merge_study.store.locks, merge_study.name):
        found = merge_study.study.user_attrs.get(IDENTITY)
        if found is None:
            found = new_identity()
            merge_study.study.set_user_attr(IDENTITY, found)
    merge_study.identity = found
    return str(found)


def new_identity() -> str:
    return uuid.uuid4().hex


def following(merge_study: MergeStudy, call: Callable[[], Result]) -> Result:
    """Calls again what failed because the study was renamed; for what may be done twice.

    Raises:
        EvomergeError: the study was deleted.
    """
    while True:
        try:
            return call()
        except _GONE:
            if not follow(merge_study):
                raise


def follow(merge_study: MergeStudy) -> bool:
    """Makes of a study that is gone the one of another name that it has become.

    Returns:
        Was it gone?

    Raises:
        EvomergeError: it was deleted.
    """
    store = merge_study.store
    try:
        require_study(merge_study.study)
    except KeyError:
        found = open_identified(store, merge_study.name, merge_study.identity)
        merge_study.study, merge_study.spec = found.study, found.spec
        return True
    return False


def open_identified(store: Store, name: str, identity: str | None) -> MergeStudy:
    """Opens a study by its identity; `name` is what it was called.

    Raises:
        EvomergeError: it was deleted.
    """
    with suppress(UsageError):
        found = open_study(store, name)
        if found.identity == identity:
            return found
    studies = [s for s in store.rdb.get_all_studies() if s.user_attrs.get(IDENTITY) == identity]
    if identity is None or not studies:
        raise EvomergeError(f"study '{name}' in {store} was deleted meanwhile")
    return open_study(store, max(studies, key=study_id).study_name)
