"""LAION's aesthetic predictor: a linear head over CLIP embeddings of pictures.

The head is a chain of linear layers with nothing between them, since its authors left out the
activations; its one layer less is the first version. Their files are pickles, which can run code;
they are converted once: see `docs/images.md`.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.image_scorers.base import Drawn, PictureScorer
from evomerge_optuna.evaluation.image_scorers.embedding import (
    check_embedder,
    embedder,
    embedder_fingerprint,
)
from evomerge_optuna.explain import first_line
from evomerge_optuna.spec.images import AestheticScorer

if TYPE_CHECKING:
    import torch

_LAYER = re.compile(r"(?:layers\.)?(?:(\d+)\.)?(weight|bias)")


class Aesthetic(PictureScorer[AestheticScorer]):
    """How beautiful people would find a picture, whatever its prompt."""

    def check(self) -> None:
        check_embedder(self.spec.model, f"{self.key}.model")
        self._layers  # noqa: B018

    def fingerprint(self) -> str:
        return embedder_fingerprint(self.spec.model, self._file)

    def scores(self, drawn: Sequence[Drawn]) -> list[float]:
        model = self.spec.model
        loaded = embedder(model, model, self.device, f"{self.key}.model")
        found = loaded.of_images([one.image for one in drawn])
        if (width := found.shape[1]) != (takes := self._layers[0][0].shape[1]):
            raise SpecError(
                f"{self.key}.head: takes embeddings of {takes} numbers, and {model} gives "
                f"{width}; name the model that the head was trained with"
            )
        for weight, bias in self._layers:
            found = found @ weight.T + bias
        return [float(score) for score in found[:, 0]]

    @cached_property
    def _file(self) -> Path:
        head = self.spec.head
        file = Path(head).expanduser()
        if file.is_file():
            return file
        organisation, _, rest = head.partition("/")
        repository, _, name = rest.partition("/")
        if head.startswith(("/", ".", "~")) or not name:
            raise SpecError(f"{self.key}.head: there is no file {head}; correct the path")
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(f"{organisation}/{repository}", name))
        except Exception as error:
            raise SpecError(
                f"{self.key}.head: {head} is no local file, and the hub does not give it: "
                f"{first_line(error)}"
            ) from error

    @cached_property
    def _layers(self) -> "list[tuple[torch.Tensor, torch.Tensor]]":
        """Weight (out, in) and bias of each linear layer, in their order."""
        from safetensors.torch import load_file

        try:
            tensors = load_file(self._file)
        except Exception as error:
            raise SpecError(
                f"{self.key}.head: {self.spec.head} cannot be read: {first_line(error)}"
            ) from error
        layers: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if found := _LAYER.fullmatch(name):
                layers.setdefault(int(found[1] or 0), {})[found[2]] = tensor.float()
        chain = [layer for _, layer in sorted(layers.items())]
        if not chain or any(len(layer) < 2 for layer in chain) or not _fits(chain):
            raise SpecError(
                f"{self.key}.head: {self.spec.head} is no chain of linear layers that ends in one "
                "number; it should have layers.0.weight, layers.0.bias ..."
            )
        return [(layer["weight"], layer["bias"]) for layer in chain]


SCORER = Aesthetic


def _fits(chain: "Sequence[dict[str, torch.Tensor]]") -> bool:
    shapes = [tuple(layer["weight"].shape) for layer in chain]
    flat = all(len(shape) == 2 for shape in shapes)
    return (
        flat and all(one[0] == other[1] for one, other in pairwise(shapes)) and shapes[-1][0] == 1
    )
