"""Which of several models were the others made from? A few tensors tell."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.headers import Header, headers_in, opened
from evomerge_optuna.models.pipelines import denoiser_of, is_pipeline, pipeline_index
from evomerge_optuna.models.shards import weight_files

if TYPE_CHECKING:
    import torch

_TENSORS = 4  # that are compared
_ROWS = 256  # of each


def centre(models: Mapping[str, Path]) -> str | None:
    """The model from which all others are less far than they are from each other.

    Fine-tunes of one base move away from it in directions of their own. So the base is nearer to
    each of two fine-tunes than these are to each other. Of two models nothing can be told.

    Args:
        models: folders of checkpoints or pipelines, by name.

    Returns:
        Its name; None where there is none, or where the models have not the same tensors.
    """
    if len(models) < 3:
        return None
    try:
        folders = {name: _weights(folder) for name, folder in models.items()}
        headers = {name: headers_in(folder, name) for name, folder in folders.items()}
        chosen = _chosen(headers)
        samples = {name: _sample(folder, name, chosen) for name, folder in folders.items()}
    except (SpecError, OSError):
        return None
    if not chosen:
        return None
    far = {(a, b): float((samples[a] - samples[b]).norm()) for a in samples for b in samples}
    for name in samples:
        others = [other for other in samples if other != name]
        pairs = [(a, b) for a in others for b in others if a < b]
        if all(far[name, a] > 0 for a in others) and all(
            max(far[name, a], far[name, b]) < far[a, b] for a, b in pairs
        ):
            return name
    return None


def _weights(folder: Path) -> Path:
    """The folder with the weights that are merged."""
    if is_pipeline(folder):
        return folder / denoiser_of(pipeline_index(folder), str(folder))
    return folder


def _chosen(headers: Mapping[str, Mapping[str, Header]]) -> list[str]:
    """Names of matrices that all have in one shape, from all of the depth."""
    first, *others = headers.values()
    shared = [
        name
        for name, header in sorted(first.items())
        if len(header.shape) == 2
        and all(name in other and other[name].shape == header.shape for other in others)
    ]
    step = max(1, len(shared) // _TENSORS)
    return shared[::step][:_TENSORS]


def _sample(folder: Path, name: str, tensors: list[str]) -> "torch.Tensor":
    """The first rows of these tensors, one after the other, as float32."""
    import torch

    parts: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        with opened(name, file) as tensors_of_file:
            for tensor in set(tensors) & set(tensors_of_file.keys()):
                rows = tensors_of_file.get_slice(tensor)
                parts[tensor] = torch.as_tensor(rows[:_ROWS]).float().flatten()  # type: ignore[index]
    return torch.cat([parts[tensor] for tensor in tensors])
