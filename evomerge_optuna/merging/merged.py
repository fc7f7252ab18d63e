"""What a merger is and what it makes: a model that can be scored."""

from dataclasses import dataclass
from typing import Any, Protocol

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe


@dataclass(frozen=True)
class Merged:
    """A model ready to run, its tokenizer, and what its weights hash to.

    SHA-256 of the merged tensors; of a stack, of its recipe with the tensors of its models. A
    vision-language model has a processor, too, which makes inputs of text and images.
    """

    model: Any
    tokenizer: Any
    digest: str
    processor: Any | None = None


class Merger(Protocol):
    """Turns recipes into models, one at a time."""

    def merge(self, recipe: Recipe) -> Merged:
        """The recipe's model; it is valid until the next merge.

        Raises:
            CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
            OSError: a file cannot be read or written.
        """
        ...


class MergeMerger(Protocol):
    """A merger of merge recipes alone."""

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; see `Merger`."""
        ...
