"""A model of transformers whose parameters are the tensors of a merger's streams."""

import tempfile
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge_optuna.merging.merge_stream import MergeStream
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.plan import mergekit_errors
from evomerge_optuna.models.loading import model_of, model_with
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.recipes.merge import MergeRecipe


class ModelInPlace:
    """Holds one model, into whose memory every merge of its structure is made.

    Args:
        merger: makes the merges.
    """

    def __init__(self, merger: MergeMerger) -> None:
        self._merger = merger
        self._structure = ""
        self._tensors: dict[str, torch.Tensor] = {}
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._stream: MergeStream | None = None  # the last one
        self._is_current = False  # Is the model made of these very tensors,
        self._shares_memory = False  # and does it change with them?

    def load(self, recipe: MergeRecipe) -> None:
        """Reads what the merges of recipes of this structure share; see `MergeMerger.load`."""
        self._merger.load(recipe)

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; it is valid until the next merge.

        Raises:
            CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
            OSError: a file cannot be read.
        """
        if self._stream is not None:  # whose tensors may still be read where they are written to
            self._stream.wait()
        self._stream = stream = self._merger.stream(recipe, self._tensors)
        if stream.structure != self._structure:
            self._forget()  # before the next one needs its memory
            self._structure = stream.structure
        for name, tensor in stream:
            if self._tensors.get(name) is not tensor:
                self._tensors[name], self._is_current = tensor, False
        stream.complete()
        if not (self._shares_memory and self._is_current):
            with mergekit_errors():
                self._make_model(stream)
        return Merged(self._model, self._tokenizer, stream.digest)

    def _make_model(self, stream: Stream) -> None:
        device = self._merger.device
        if self._model is None or self._tokenizer is None:
            with tempfile.TemporaryDirectory() as folder:
                stream.write_files_beside_weights(Path(folder))
                self._model, self._tokenizer = model_of(self._tensors, Path(folder), device)
        else:
            generation_config = self._model.generation_config
            model = model_with(type(self._model), self._model.config, self._tensors)
            model.generation_config = generation_config
            self._model = model.to(device)
        # transformers makes other tensors of those of some architectures, by rules of its own.
        self._shares_memory = _has_all(self._model, self._tensors)
        self._is_current = True

    def _forget(self) -> None:
        self._tensors.clear()
        self._model = self._tokenizer = None
        self._is_current = False


def _has_all(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> bool:
    """Are all tensors parameters of the model, so that it changes with them?"""
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    return all(tensor.data_ptr() in own for tensor in tensors.values())
