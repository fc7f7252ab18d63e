"""The checks of a study's models, which are opened for it."""

from evomerge_optuna.families import check_models, family_of
from evomerge_optuna.families.base import Architecture
from evomerge_optuna.models.headers import Header
from evomerge_optuna.models.opened import OpenedModel, OpenedModels
from evomerge_optuna.spec import StudySpec


def checked(spec: StudySpec) -> Architecture:
    return check_models(spec, OpenedModels(spec.model_ids()))


def merged_headers(model: str, key: str) -> dict[str, Header]:
    opened = OpenedModel(model, key)
    return dict(family_of(opened).merged_headers(opened))
