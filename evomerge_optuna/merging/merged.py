"""What a merger is and what it makes: a model that can be scored."""

from collections.abc import Collection
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

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        """Reads what `merge` needs of this recipe's models, and of others of its structure.

        Args:
            layers_of: models whose layers other stacks may have.

        Raises:
            CandidateError, OSError: as `merge`.
        """

    def merge(self, recipe: Recipe) -> Merged:
        """The recipe's model; it is valid until the next merge.

        Raises:
            CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
            OSError: a file cannot be read or written.
        """
        ...


class MergeMerger(Protocol):
    """A merger of merge recipes alone."""

    def load(self, recipe: MergeRecipe) -> None:
        """Reads what is kept between merges; see `Merger`."""

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; see `Merger`."""
        ...
