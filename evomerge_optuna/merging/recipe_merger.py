"""The merger of every kind of recipe: what gives a candidate's tensors, whoever takes them."""

from collections.abc import Callable, Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from evomerge_optuna.families import family_of_host
from evomerge_optuna.merging.folding import StackMerger
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.plan import mergekit_errors, translated_errors
from evomerge_optuna.merging.stack_sources import StackSources
from evomerge_optuna.models.stream import NO_MEMORY, Memory, Stream, write_stream
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe


class RecipeMerger:
    """Gives the stream of any recipe: a merge, or a stack, which is folded.

    Args:
        device: "auto", "cpu" or "cuda".
        make_merger: makes a merger of merge recipes; each merge in a stack has one of its own.
    """

    def __init__(self, device: str, make_merger: Callable[[], MergeMerger]) -> None:
        self._merges = make_merger()
        self._stacks = StackMerger(StackSources(device, lambda: ModelInPlace(make_merger())))

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        """Reads what is kept between streams of such recipes.

        Args:
            layers_of: models whose layers other stacks may have.

        Raises:
            CandidateError, OSError: a model cannot be read, or a merge cannot be planned.
        """
        if isinstance(recipe, StackRecipe):
            self._stacks.load(recipe, layers_of)
        else:
            self._merges.load(recipe)

    def stream(self, recipe: Recipe, into: Memory = NO_MEMORY) -> Stream:
        """The model of a recipe; where the recipe has a host, the merged part alone.

        Args:
            into: the receiver's memory, in which a merge is made where it fits.

        Raises:
            CandidateError, OSError: the recipe cannot be built.
        """
        if isinstance(recipe, StackRecipe):
            return self._stacks.stream(recipe)
        return self._merges.stream(recipe, into)


def write_recipe(recipe: Recipe, folder: Path, device: str) -> str:
    """Writes a recipe's checkpoint, made as mergekit itself makes it, and returns its digest.

    Args:
        folder: is empty, or is not there yet.
        device: where mergekit merges ("auto", "cpu" or "cuda"); random masks depend on it.

    Raises:
        CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
        OSError: the machine's fault: a file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.host is None:
        return _write(recipe, folder, device)
    with TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as merged:
        digest = _write(recipe, Path(merged), device)
        with mergekit_errors(folder):
            family = family_of_host(recipe.host)
            return family.write_whole(recipe.host, Path(merged), digest, folder)


def _write(recipe: Recipe, folder: Path, device: str) -> str:
    with translated_errors(folder):
        merger = RecipeMerger(device, lambda: MergekitMerger(device))
        return write_stream(merger.stream(recipe), folder)
