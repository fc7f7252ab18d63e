"""A merged model in memory, and what makes such models."""

from dataclasses import dataclass
from typing import Any, Protocol

from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.recipes.merge import MergeRecipe


@dataclass(frozen=True)
class Merged:
    """A model ready to run, its tokenizer, and what its weights hash to.

    SHA-256 of the merged tensors; of a stack, of its recipe with the tensors of its models.
    """

    model: Any
    tokenizer: Any
    digest: str

    @property
    def reader(self) -> Reader:
        """What the model reads with."""
        return Reader(self.tokenizer, positions(self.model.config))


class ModelMaker(Protocol):
    """Makes models of merge recipes, one at a time."""

    def load(self, recipe: MergeRecipe) -> None:
        """Reads what the merges of recipes of this structure share, if that is kept.

        Raises:
            CandidateError, OSError: as `merge`.
        """

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; it is valid until the next merge.

        Raises:
            CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
            OSError: a file cannot be read or written.
        """
        ...
