"""Which of several models were the others made from? A few tensors tell."""

from collections.abc import Mapping
from dataclasses import dataclass
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
_APART = 0.4  # a cosine


@dataclass(frozen=True)
class Centre:
    """A model between others.

    Args:
        cosine: the largest cosine between the ways from it to two of the others: 0 where they have
            nothing in common.
    """

    model: str
    cosine: float


def centre(models: Mapping[str, Path]) -> Centre | None:
    """The model from which the ways to all others have the least in common.

    Fine-tunes of one base move away from it in directions of their own, while from one fine-tune
    the ways to two others both lead back through the base, with a cosine of 0.5 where all are as
    far from it. Of two models nothing can be told.

    Args:
        models: folders of checkpoints or pipelines, by name.

    Returns:
        None where there is none, or where the models have not the same tensors.
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
    found = [Centre(name, _largest_cosine(name, samples)) for name in samples if chosen]
    best = min(found, key=lambda one: one.cosine, default=None)
    return best if best is not None and best.cosine < _APART else None


def _largest_cosine(name: str, samples: "Mapping[str, torch.Tensor]") -> float:
    """See `Centre`; 1 where another model is the same."""
    from torch.nn.functional import cosine_similarity

    ways = [sample - samples[name] for other, sample in samples.items() if other != name]
    if any(not way.any() for way in ways):
        return 1.0
    return max(
        float(cosine_similarity(one, other, dim=0))
        for number, one in enumerate(ways)
        for other in ways[:number]
    )


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
