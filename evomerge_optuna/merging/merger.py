"""What a merger is: it turns a recipe into a stream of named tensors."""

from typing import Protocol

from evomerge_optuna.merging.merge_stream import MergeStream
from evomerge_optuna.models.stream import NO_MEMORY, Memory
from evomerge_optuna.recipes.merge import MergeRecipe


class MergeMerger(Protocol):
    """A merger of merge recipes.

    Attributes:
        device: where it merges, "cpu" or "cuda:1".
    """

    device: str

    def load(self, recipe: MergeRecipe) -> None:
        """Reads what the streams of all recipes of this structure share, if that is kept.

        Raises:
            CandidateError, OSError: as the stream.
        """

    def stream(self, recipe: MergeRecipe, into: Memory = NO_MEMORY) -> MergeStream:
        """The recipe's model; only configurations are read before its first tensor is asked for.

        Args:
            into: the receiver's memory, in which tensors are made where it fits.

        Raises:
            CandidateError: mergekit refuses the recipe.
            OSError: a file cannot be read.
        """
        ...
