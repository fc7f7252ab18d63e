"""mergekit's merger: runs each merge as mergekit itself does, and keeps nothing between merges."""

from collections.abc import Iterator

import transformers

from evomerge_optuna.devices import torch_device
from evomerge_optuna.merging.merge_stream import MergeStream
from evomerge_optuna.merging.mergekit_internals import close_model_files
from evomerge_optuna.merging.plan import (
    MergePlan,
    mergekit_errors,
    plan_merge,
    structure,
    translated_errors,
)
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.models.stream import NO_MEMORY, Memory
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.merge import MergeRecipe


class MergekitMerger:
    """Gives merges as streams of new tensors on the CPU; see `MergeMerger`.

    Args:
        device: as in a spec, "auto" or "cuda:1": where tensors are merged, on which random masks
            depend.
    """

    def __init__(self, device: str) -> None:
        self.device = torch_device(device)

    def load(self, recipe: MergeRecipe) -> None:
        """Does nothing, since every merge reads its models anew."""

    def stream(self, recipe: MergeRecipe, into: Memory = NO_MEMORY) -> MergeStream:
        with mergekit_errors():
            plan = plan_merge(recipe, self.device)
        return MergeStream(
            plan, structure(recipe), lambda: _run(plan, recipe.seed), self.device, NO_MEMORY
        )


def _run(plan: MergePlan, seed: int) -> Iterator[NamedTensor]:
    transformers.set_seed(seed)
    tensors = plan.run()
    try:
        with translated_errors():
            while True:
                with quiet():  # not while the receiver has its turn
                    found = next(tensors, None)
                if found is None:
                    return
                name, tensor = found
                yield name, tensor.contiguous()
    finally:
        close_model_files()
