"""The engines that a study may name, and what each of them cannot do.

A new engine is a row here, and one in `engines.ENGINES`, which says what runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

# What a task or a kind of model may need of an engine, beside texts and likelihoods.
Need: TypeAlias = Literal["a model", "a checkpoint", "sampling", "sight", "drawing", "adapters"]


@dataclass(frozen=True)
class EngineRow:
    """What a study knows of an engine before what it runs on, which takes long to import, is there.

    Args:
        name: as a spec names it.
        package: whose version decides scores, beside those that decide every study's.
        takes_args: are there `engine_args` for it?
        joins: can it be asked for several adapters at once?
        lacks: what it does not give, each with the rest of a sentence that begins with who needs
            it, a task or a kind of model.
    """

    name: str
    package: str | None = None
    takes_args: bool = False
    joins: bool = False
    lacks: Mapping[Need | None, str] = field(default_factory=dict)


_ROWS = (
    EngineRow(
        "transformers",
        lacks={"drawing": "draws images, and transformers writes texts alone"},
    ),
    EngineRow(
        "vllm",
        package="vllm",
        takes_args=True,
        joins=True,
        lacks={
            "a model": "runs code that is given a model of transformers, which vllm does not have",
            "a checkpoint": "with a backend loads a checkpoint, which vllm does not need",
            "sampling": "has answers that are not the most likely ones, which alone vllm gives",
            "sight": "takes images, which vllm is not given yet",
            "drawing": "draws images, and vllm writes texts alone",
        },
    ),
    EngineRow(
        "diffusers",
        package="diffusers",
        lacks={
            None: "writes texts, and diffusers draws images alone",
            "a model": "runs code that is given a model of transformers, which diffusers has not",
            "sight": "takes images, and diffusers draws images alone",
            "adapters": "merges adapters of language models, and diffusers draws images alone",
        },
    ),
)

ENGINE_ROWS = {row.name: row for row in _ROWS}

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINE_ROWS)]
