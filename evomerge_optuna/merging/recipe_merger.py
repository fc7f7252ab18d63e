"""The merger of all recipes of whole models: what gives their tensors, whoever takes them."""

from collections.abc import Callable, Collection
from pathlib import Path

from evomerge_optuna.families import family_of_host
from evomerge_optuna.merging.folding import StackMerger
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.plan import mergekit_errors
from evomerge_optuna.merging.stack_sources import StackSources
from evomerge_optuna.models.stream import NO_MEMORY, Memory, Stream
from evomerge_optuna.recipes.recipe import WholeRecipe
from evomerge_optuna.recipes.stack import StackRecipe


class RecipeMerger:
    """Gives the stream of any recipe: of a merge, or of a stack, folded, each in its host if any.

    Args:
        device: as in a spec, "auto" or "cuda:1".
        make_merger: makes a merger of merge recipes; each merge in a stack has one of its own.
        memory_limit: bytes that models of stacks may take of the device; None: 70% of what is free.
        engine: bytes of the device that the receiver of the streams takes.
    """

    def __init__(
        self,
        device: str,
        make_merger: Callable[[], MergeMerger],
        memory_limit: int | None = None,
        engine: int | None = None,
    ) -> None:
        self._merges = make_merger()
        models = StackSources(
            device, lambda: ModelInPlace(make_merger()), memory_limit, engine=engine
        )
        self._stacks = StackMerger(models)

    def load(self, recipe: WholeRecipe, layers_of: Collection[str] = ()) -> None:
        """Reads what the streams of all recipes of this structure share, if that is kept.

        Args:
            layers_of: models whose layers other stacks may have.

        Raises:
            CandidateError, OSError: a model cannot be read, or a merge cannot be planned.
        """
        if isinstance(recipe, StackRecipe):
            self._stacks.load(recipe, layers_of)
        else:
            self._merges.load(recipe)

    def stream(self, recipe: WholeRecipe, into: Memory = NO_MEMORY) -> Stream:
        """The recipe's model.

        Args:
            into: the receiver's memory, in which a merge is made where it fits. A stack, and a
                merge that goes into a host, are made in memory of their own.

        Raises:
            CandidateError, SpecError, OSError: the recipe cannot be built.
        """
        if recipe.host is not None:
            family = family_of_host(recipe.host)
            return family.whole_stream(recipe.host, self.part(recipe))
        return self.part(recipe, into)

    def part(self, recipe: WholeRecipe, into: Memory = NO_MEMORY) -> Stream:
        """The merged part alone of a recipe with a host; see `stream`."""
        if isinstance(recipe, StackRecipe):
            return self._stacks.stream(recipe)
        merged = self._merges.stream(recipe, into)
        if recipe.after is None or recipe.host is None:
            return merged
        return family_of_host(recipe.host).fused(merged, recipe.host, recipe.after)


def write_recipe(recipe: WholeRecipe, folder: Path, device: str) -> str:
    """Writes a recipe's checkpoint, made as mergekit itself makes it, and returns its digest.

    Args:
        folder: is empty, or is not there yet.
        device: where mergekit merges (as in a spec, "auto" or "cuda:1"); random masks depend on it.

    Raises:
        CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
        OSError: the machine's fault: a file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merger = RecipeMerger(device, lambda: MergekitMerger(device))
    with mergekit_errors(folder):
        return family_of_host(recipe.host).write(recipe.host, merger.part(recipe), folder)
