"""A merged model in memory, and what makes such models."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from evomerge_optuna.recipes.merge import MergeRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Merged:
    """A causal language model, ready to run, its tokenizer, and what its weights hash to.

    Args:
        take_digest: gives the digest, which may be taken meanwhile.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    take_digest: Callable[[], str]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the merged tensors; of a stack, of its recipe with those of its models."""
        return self.take_digest()


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
