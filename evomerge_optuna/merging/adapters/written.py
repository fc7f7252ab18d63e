"""An adapter recipe's files, as peft reads them."""

from dataclasses import dataclass
from pathlib import Path

from evomerge_optuna.merging.adapters.merger import AdapterMerger
from evomerge_optuna.models.adapters import ADAPTER_WEIGHTS
from evomerge_optuna.models.catalog import mergekit_name
from evomerge_optuna.models.shards import write_file
from evomerge_optuna.recipes.adapter import AdapterRecipe


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        digest: SHA-256 of the tensors.
        rank: of every module.
        lost: the norm of what cutting the rank lost, as a share of the whole; None: nothing is cut.
    """

    digest: str
    rank: int
    lost: float | None

    def in_words(self) -> str:
        """Its rank, and what that costs."""
        if self.lost is None:
            return f"rank {self.rank}"
        return (
            f"rank {self.rank}, to which it is cut by singular value decomposition: "
            f"{self.lost:.2%} of the norm of the merge are lost"
        )


def write_adapter(recipe: AdapterRecipe, folder: Path) -> Written:
    """Writes a recipe's adapter into an empty folder.

    Raises:
        CandidateError: the recipe cannot be built, or a value is NaN or infinite.
        SpecError, OSError: a file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = AdapterMerger().stream(recipe)
    write_file(dict(stream), folder / ADAPTER_WEIGHTS)
    stream.write_files_beside_weights(folder, mergekit_name(recipe.base_model))
    return Written(stream.digest(), stream.rank, stream.lost)
