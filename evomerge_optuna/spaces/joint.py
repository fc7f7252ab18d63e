"""Both spaces at once: a merge, and a stack of layers in which it is one of the models."""

from dataclasses import dataclass, replace

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spaces.stack import StackSpace
from evomerge_optuna.spec import MERGED, Dimension


@dataclass(frozen=True)
class JointSpace(SearchSpace):
    """Turns an Optuna trial into a `StackRecipe` over a `MergeRecipe`; has both's parameters."""

    merge: ParameterSpace
    stack: StackSpace
    baseline_name = "uniform merge"
    fewer = "larger layer groups have fewer, and stack.scale: network has 21 for all scales"

    def ranges(self) -> dict[str, Dimension]:
        """Those of the merge, then those of the stack."""
        return self.merge.ranges() | self.stack.ranges()

    def baseline(self) -> Values:
        """The identity path over the uniform merge."""
        return self.merge.baseline() | self.stack.baseline()

    def sources(self) -> dict[str, Values]:
        """The identity path over each source model."""
        stack = self.stack.baseline()
        return {alias: values | stack for alias, values in self.merge.sources().items()}

    def starts(self) -> dict[str, Values]:
        """Those of the merge with the identity path, then those of the stack, uniformly merged."""
        merge, stack = self.merge.baseline(), self.stack.baseline()
        return {name: values | stack for name, values in self.merge.starts().items()} | {
            name: merge | values for name, values in self.stack.starts().items()
        }

    def values(self, searched: Values) -> Values:
        """Those of the merge, fixed ones too, and those of the stack."""
        return searched | self.merge.values(searched)

    def values_of(self, parameters: Values, recipe: Recipe) -> Values | None:
        """A merge with the identity path; a stack with its first model in the merge's place."""
        if not isinstance(recipe, StackRecipe):
            merge = self.merge.values_of(parameters, recipe)
            return None if merge is None else merge | self.stack.baseline()
        if recipe.merges:
            return self._values_of_joint(parameters, recipe)
        aliases = {model: alias for alias, model in self.merge.spec.models.items()}
        merge = self.merge.sources().get(aliases.get(recipe.embeddings, ""))
        first = recipe.embeddings
        in_place = recipe.located(lambda name: MERGED if name == first else name)
        stack = self.stack.values_of(parameters, in_place)
        return None if merge is None or stack is None else merge | stack

    def unsearched(self) -> dict[str, MergeRecipe]:
        """Those of the merge, all layers once."""
        return self.merge.unsearched()

    def layers_of(self) -> tuple[str, ...]:
        """The models whose layers a recipe may have."""
        return self.stack.layers_of()

    def _values_of_joint(self, parameters: Values, recipe: StackRecipe) -> Values | None:
        ranges = self.stack.ranges()
        if not ranges.keys() <= parameters.keys() or recipe.merges.keys() != {MERGED}:
            return None
        stack = self.stack.moved(parameters)
        merge = self.merge.values_of(parameters, recipe.merges[MERGED])
        if merge is None or self.recipe(merge | stack).steps != recipe.steps:
            return None
        return merge | stack

    def recipe(self, values: Values) -> StackRecipe:
        """The recipe of these parameter values."""
        merges = {MERGED: self.merge.recipe(values).without_host()}
        return replace(self.stack, merges=merges).recipe(values)
