"""A merger: from a recipe to a model that can be scored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec import EvaluationSpec


@dataclass(frozen=True)
class Merged:
    """A merged model ready to run, its tokenizer, and the SHA-256 of its tensors."""

    model: Any
    tokenizer: Any
    digest: str


class Merger(Protocol):
    """Turns recipes into models, one at a time."""

    def merge(self, recipe: MergeRecipe) -> Merged:
        """The recipe's model; it is valid until the next merge.

        Raises:
            CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
            OSError: a file cannot be read or written.
        """
        ...


def make_merger(spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None) -> Merger:
    """The merger that a spec asks for; `say` is told once what it keeps in memory."""
    # Imported here: mergekit and torch take seconds, and most commands merge nothing.
    if spec.merger == "checkpoint":
        from evomerge_optuna.merging.checkpoint import CheckpointMerger

        return CheckpointMerger(spec.device)
    from evomerge_optuna.merging.resident import ResidentMerger

    return ResidentMerger(spec.device, spec.memory_limit, say)
