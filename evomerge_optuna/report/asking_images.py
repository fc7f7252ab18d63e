"""What an exported pipeline is asked, and how its replies are compared; see `asking`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from evomerge_optuna.engines.base import Drawing, ImageEngine, Picture
from evomerge_optuna.evaluation.tasks import Tasks
from evomerge_optuna.spec import ImageTask

if TYPE_CHECKING:
    from PIL.Image import Image

_PROMPTS = 2  # of each task
_HOW = Drawing(steps=4, guidance=1.0)


@dataclass(frozen=True)
class Drawn:
    """What a pipeline says of itself, in the dtype that the study scores in.

    Attributes:
        tensors: SHA-256 over the state dict of each component.
        scheduler: its configuration.
        vocabulary: of its tokenizer.
        pictures: the pixels of a few pictures.
    """

    tensors: Mapping[str, str]
    scheduler: Mapping[str, Any]
    vocabulary: Mapping[str, int]
    pictures: tuple[bytes, ...]


def ask(tasks: Tasks, engine: ImageEngine) -> Drawn:
    """A pipeline's replies: the first prompts of each task, in its size, drawn in 4 steps."""
    import torch

    from evomerge_optuna.models.digest import digest_tensors

    pipeline: Any = engine.pipeline  # type: ignore[attr-defined]
    components = pipeline.components.items()
    modules = {name: own for name, own in components if isinstance(own, torch.nn.Module)}
    images: list[Image] = []
    for runner in tasks.values():
        if isinstance(runner.task, ImageTask) and "search" in runner.splits:
            texts = [problem.text for problem in runner.problems("search")[:_PROMPTS]]
            asked = [Picture(text, seed) for seed, text in enumerate(texts)]
            images += engine.draw(asked, replace(_HOW, size=runner.task.size))
    return Drawn(
        tensors={name: digest_tensors(module.state_dict()) for name, module in modules.items()},
        scheduler={k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")},
        vocabulary=engine.reader.tokenizer.get_vocab(),
        pictures=tuple(image.tobytes() for image in images),
    )


def difference(scored: Drawn, found: Drawn) -> str | None:
    """In what the two differ; None where they do not."""
    if scored.vocabulary != found.vocabulary:
        return "its tokenizer has other tokens"
    if scored.scheduler != found.scheduler:
        return "its scheduler is set otherwise"
    for name in sorted({*scored.tensors, *found.tensors}):
        if scored.tensors.get(name) != found.tensors.get(name):
            return f"its {name} has other tensors"
    return None if scored.pictures == found.pictures else "it draws other pictures"


def what_was_compared(scored: Drawn, found: Drawn) -> str:
    """What was found to be equal, in a line."""
    return (
        f"checked: plain diffusers loads it; the tensors of {', '.join(found.tensors)}, tokens, "
        f"scheduler and {len(found.pictures)} pictures, pixel for pixel, equal those of the scored "
        "candidate"
    )
