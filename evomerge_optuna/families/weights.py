"""Can these weights be merged? Every tensor of every model is looked at once, before the search."""

from collections.abc import Callable
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from evomerge_optuna.errors import IncompleteError, SpecError
from evomerge_optuna.families.vision_language.text_part import is_vision_language, text_folder
from evomerge_optuna.models.catalog import load_config, local_folder
from evomerge_optuna.models.digest import is_finite
from evomerge_optuna.models.files import check_files
from evomerge_optuna.models.headers import ANOTHER_COPY, opened
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.shards import weight_files
from evomerge_optuna.spec import StudySpec


def check_weights(spec: StudySpec) -> None:
    """Checks tensors' shapes against the first model's, types and values, and that none is missing.

    Raises:
        SpecError: naming the model and the tensor: quantized, missing, of another shape than in the
            first model, NaN or infinite values; or the file that cannot be read.
    """
    for key, model in spec.model_ids().items():
        check_files(local_folder(model), f"{key} ({model})")  # of those from the hub
    check_shape = _shape_check(rows_may_differ=spec.any_vocabulary)
    # What is not text is not merged, but it is run.
    for folder_of, check in ((text_folder, check_shape), (local_folder, _check_values)):
        for key, model in spec.model_ids().items():
            for file in weight_files(folder_of(model)):
                with opened(f"{key} ({model})", file) as tensors:
                    for name in tensors.keys():  # noqa: SIM118
                        check(f"{key} ({model}): tensor {name}", name, tensors)
    for key, model in spec.model_ids().items():
        _check_complete(key, model)


def _check_complete(key: str, model: str) -> None:
    """transformers must find every tensor of the model's class, and know every tensor there is."""
    folders = (
        {local_folder(model): AutoModelForImageTextToText}
        if is_vision_language(load_config(model, key))
        else {}
    )
    for folder, kind in (folders | {text_folder(model): AutoModelForCausalLM}).items():
        try:
            complete_model(kind, folder, device_map="meta")  # reads no weight
        except IncompleteError as error:
            raise SpecError(
                f"{key} ({model}) {error.what}; a merge would have it at random or without it: "
                "correct config.json or the files, or leave the model out"
            ) from error


def _shape_check(rows_may_differ: bool) -> Callable[[str, str, Any], None]:
    """Compares with the first tensor of each name."""
    seen: dict[str, tuple[str, list[int]]] = {}

    def check(tensor: str, name: str, tensors: Any) -> None:
        shape = tensors.get_slice(name).get_shape()
        first, wanted = seen.setdefault(name, (tensor, shape))
        if shape != wanted and not (rows_may_differ and shape[1:] == wanted[1:]):
            raise SpecError(
                f"{tensor} has shape {shape}, but in {first.partition(':')[0]} it has {wanted}; "
                "only models of one shape can be merged"
            )

    return check


def _check_values(tensor: str, name: str, tensors: Any) -> None:
    values = tensors.get_tensor(name)
    if not is_finite(values):
        raise SpecError(f"{tensor} has NaN or infinite values; {ANOTHER_COPY}")
