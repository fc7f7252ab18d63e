"""Can these weights be merged? Every tensor of every model is looked at once, before the search."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from evomerge_optuna.errors import IncompleteError, SpecError
from evomerge_optuna.families import family_of
from evomerge_optuna.models.digest import is_finite
from evomerge_optuna.models.files import check_files
from evomerge_optuna.models.headers import ANOTHER_COPY, OpenFile, opened
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.pipelines import checkpoint_folders
from evomerge_optuna.models.shards import weight_files
from evomerge_optuna.spec import StudySpec

Check: TypeAlias = Callable[[str, str, OpenFile], None]  # for messages, its name, the open file


def check_weights(spec: StudySpec, models: Mapping[str, OpenedModel]) -> None:
    """Checks tensors' shapes against the first model's, types and values, and that none is missing.

    Raises:
        SpecError: naming the model and the tensor: quantized, missing, of another shape than in the
            first model, NaN or infinite values; or the file that cannot be read.
    """
    for key, model in models.items():
        for place in checkpoint_folders(model.folder):
            check_files(place, f"{key} ({model.name})")  # of those from the hub
    check_shape = _shape_check(rows_may_differ=spec.any_vocabulary)
    for key, model in models.items():
        merged = family_of(model).merged_folder(model.folder, spec.components)
        _check_tensors(f"{key} ({model.name})", merged, check_shape)
    for key, model in models.items():  # tensors that are not merged are run
        for place in checkpoint_folders(model.folder):
            _check_tensors(f"{key} ({model.name})", place, _check_values)
    for key, model in models.items():
        try:
            family_of(model).check_complete(model, spec.components)
        except IncompleteError as error:
            raise SpecError(
                f"{key} ({model.name}) {error.what}; a merge would have it at random or without "
                "it: correct config.json or the files, or leave the model out"
            ) from error


def _check_tensors(model: str, folder: Path, check: Check) -> None:
    for file in weight_files(folder):
        with opened(model, file) as tensors:
            for name in tensors.keys():  # noqa: SIM118
                check(f"{model}: tensor {name}", name, tensors)


def _shape_check(rows_may_differ: bool) -> Check:
    """Compares with the first tensor of each name."""
    seen: dict[str, tuple[str, list[int]]] = {}

    def check(tensor: str, name: str, tensors: OpenFile) -> None:
        shape = tensors.get_slice(name).get_shape()
        first, wanted = seen.setdefault(name, (tensor, shape))
        if shape != wanted and not (rows_may_differ and shape[1:] == wanted[1:]):
            raise SpecError(
                f"{tensor} has shape {shape}, but in {first.partition(':')[0]} it has {wanted}; "
                "only models of one shape can be merged"
            )

    return check


def _check_values(tensor: str, name: str, tensors: OpenFile) -> None:
    values = tensors.get_tensor(name)
    if not is_finite(values):
        raise SpecError(f"{tensor} has NaN or infinite values; {ANOTHER_COPY}")
