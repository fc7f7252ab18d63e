"""What every engine does: it holds a model and answers for it.

`engines/__init__.py` says which engines there are.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from evomerge_optuna.engines.stops import Text
from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import Cut, EvaluationSpec

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Greedy:
    """How prompts are continued: always by the most likely next token, up to the first of its ends.

    Attributes:
        max_new_tokens: at most, of each continuation.
        stop: strings before which a continuation ends.
        thinking: what ends a model's thinking, as `</think>`; None: the tokenizer tells it.
        too_long: how a prompt is cut that the model has no positions for; None: it is refused.
            A prompt with an image is never cut.
    """

    max_new_tokens: int
    stop: Sequence[str] = ()
    thinking: str | None = None
    too_long: Cut | None = None


@dataclass(frozen=True)
class RawModel:
    """A model of transformers itself, in evaluation mode on its device.

    Attributes:
        batch_size: how many prompts the engine runs at a time.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    batch_size: int


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds the end of a text.

    Attributes:
        total: the sum of log p(token | tokens before), in nats.
        is_greedy: is each of its tokens the most likely one in its place?
    """

    total: float
    is_greedy: bool


@dataclass(frozen=True)
class Picture:
    """A picture that is asked for.

    Attributes:
        prompt: what it is to show.
        seed: of the noise that it is drawn from; the same on every device.
        negative: what it is not to show; heeded where guidance is above 1.
    """

    prompt: str
    seed: int
    negative: str = ""


@dataclass(frozen=True)
class Drawing:
    """How pictures are drawn.

    Attributes:
        steps: of the pipeline's scheduler.
        guidance: the scale of classifier-free guidance; up to 1 there is none.
        size: width and height in pixels; None: the pipeline's own.
    """

    steps: int
    guidance: float
    size: tuple[int, int] | None = None


class Engine(Protocol):
    """A model that can be asked: for texts (`TextEngine`) or for pictures (`ImageEngine`).

    An engine batches by itself, in sizes that fit into its memory. What it is asked raises
    torch.OutOfMemoryError, MemoryError or RuntimeError where a single problem does not fit.
    """

    @property
    def reader(self) -> Reader:
        """What the model reads with."""
        ...

    def costs(self) -> dict[str, float]:
        """What the model costs to run: `layers`, `parameters` and `flops_per_token`, if known."""
        ...

    def counting(self, on_pass: Callable[[], None]) -> AbstractContextManager[None]:
        """Within the block `on_pass` is called before each pass of the model."""
        ...

    def close(self) -> None:
        """Gives back what the engine alone holds; it cannot be asked any more."""


class ImageEngine(Engine, Protocol):
    """A model that draws pictures."""

    def draw(self, asked: Sequence[Picture], how: Drawing) -> "Iterator[Image]":
        """The pictures in RGB, in their order. None depends on the others, nor on the batch size.

        A batch is drawn when its first picture is asked for, so that memory holds no more of them.

        Raises:
            CandidateError: the pipeline cannot draw them.
        """
        ...


class TextEngine(Engine, Protocol):
    """A model that continues texts and finds them likely or not.

    All methods raise SpecError where a text is longer than the model has positions for and nothing
    is to be cut.
    """

    def generate(
        self, prompts: Sequence[str], how: Greedy, images: Sequence[bytes] | None = None
    ) -> list[Text | None]:
        """Greedy continuations of the prompts, without the prompts and without special tokens.

        A text ends with an end of text of the model's generation config, of which all else is
        ignored, or before the first of the stop strings. What a model thinks before it answers is
        left out, whatever stop strings it has; None where the thinking has no end.

        Args:
            images: one for each prompt, the contents of image files; only where the reader takes
                images, whose placeholder stands in each prompt once.
        """
        ...

    def log_likelihoods(
        self, pairs: Sequence[tuple[str, str]], too_long: Cut | None = None
    ) -> list[float]:
        """For each prompt and continuation the sum of log p(token | tokens before), in nats.

        See `encode_pair` for which tokens are the continuation's.
        """
        ...

    def likelihoods(self, texts: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
        """How likely each text is behind its first tokens.

        Args:
            texts: each the token ids of a text, and how many of them are given: one or more.
        """
        ...

    def negative_log_likelihoods(
        self, texts: Sequence[str], too_long: Cut | None = None
    ) -> list[tuple[float, int]]:
        """For each text the sum of -log p(token | tokens before), in nats, and the tokens counted.

        A text of one token, which has nothing before it, counts none.
        """
        ...

    @property
    def has_raw(self) -> bool:
        """Is there a model of transformers; see `raw`?"""
        ...

    def raw(self, who: str) -> RawModel:
        """The model itself, for code that is written for transformers.

        Args:
            who: the task that needs it, by its place in the spec.

        Raises:
            SpecError: this engine has no such model; see `no_raw_model`.
        """
        ...


def no_raw_model(engine: str, who: str) -> SpecError:
    """What an engine without a model of transformers raises in `raw`, naming the task."""
    return SpecError(
        f"{who}: this task runs code that needs a model of transformers, which the engine {engine} "
        "does not have; use the engine transformers, or remove the task"
    )


@dataclass(frozen=True)
class Candidate:
    """A recipe's model, ready to be asked, and what its weights hash to.

    Args:
        take_digest: gives the digest, which may be taken while the engine is asked.
    """

    engine: Engine
    take_digest: Callable[[], str]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the merged tensors; of a stack, of its recipe with those of its models.

        To be asked for as long as the candidate is valid.
        """
        return self.take_digest()


class CandidateBuilder(Protocol):
    """Turns recipes into models that can be asked, one at a time."""

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        """Reads what `build` needs of this recipe's models, and of others of its structure.

        Args:
            layers_of: models whose layers other stacks may have.

        Raises:
            CandidateError, OSError: as `build`.
        """

    def build(self, recipe: Recipe) -> Candidate:
        """The recipe's model; it is valid until the next one is built.

        Raises:
            CandidateError: the recipe cannot be built, or a weight is NaN or infinite.
            OSError: a file cannot be read or written.
        """
        ...


@runtime_checkable
class JoiningBuilder(CandidateBuilder, Protocol):
    """Builds candidates of which several are valid at a time, and are asked at once.

    Attributes:
        room: how many of those that were built last are valid.
    """

    room: int

    def join(self, engines: Sequence[Engine]) -> TextEngine:
        """An engine that asks each of these candidates as much, in one call.

        Of n texts that it is given, the first n / len(engines) are for the first candidate, as many
        behind them for the second, and so on.
        """
        ...


@dataclass(frozen=True)
class EngineMemory:
    """What an engine takes of the device's memory, in bytes.

    Attributes:
        engine: in all, with any candidate's weights; None: the candidate's weights and `cache`.
        cache: for keys and values, beside the weights.
        devices: over so many a candidate is spread in equal parts; `engine` is of each of them.
    """

    engine: int | None = None
    cache: int = 0
    devices: int = 1


@dataclass(frozen=True)
class EngineKind:
    """What there is to an engine.

    Attributes:
        candidate_builder: makes what builds the candidates of a study; its second argument is
            given a line about what is kept in memory, once.
        load_engine: gives a checkpoint's folder ready to be asked. It raises SpecError where the
            device is not there or the reader cannot be made, and IncompleteError where a tensor
            is missing, unknown or of another shape. The model may take the place of the last one,
            and of the last candidate.
        check: raises SpecError where the engine is not installed, or cannot do what the spec says.
        memory: what the engine takes, where the keys and values of a batch take so many bytes.
    """

    candidate_builder: Callable[[EvaluationSpec, Callable[[str], None]], CandidateBuilder]
    load_engine: Callable[[Path, EvaluationSpec], Engine]
    check: Callable[[EvaluationSpec], None] = lambda _: None
    memory: Callable[[EvaluationSpec, int], EngineMemory] = lambda _, batch: EngineMemory(
        cache=batch
    )
