"""A model in vLLM that answers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.engines.base import Greedy, Likelihood, RawModel, no_raw_model
from evomerge_optuna.engines.costs import model_costs
from evomerge_optuna.engines.encoding import encode_pairs, encode_texts
from evomerge_optuna.engines.endings import Ends
from evomerge_optuna.engines.live import LiveModel, Network
from evomerge_optuna.engines.stops import Text
from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.models.ends import GENERATION_CONFIG, end_ids
from evomerge_optuna.models.layout import meta_model
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import Cut, EvaluationSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from vllm.lora.request import LoRARequest


@dataclass(frozen=True)
class Frame:
    """All of a checkpoint but its weights.

    Attributes:
        positions: how many tokens the model has positions for; None: no bound is known.
        eos: the ids that end its texts.
        costs: see `Engine.costs`.
    """

    network: Network
    tokenizer: "PreTrainedTokenizerBase"
    positions: int | None
    eos: tuple[int, ...]
    costs: dict[str, float]


class VllmEngine:
    """A model in vLLM that answers, until another is put into its place; see `TextEngine`.

    vLLM forms the batches by itself. Texts are encoded and ended as for every other engine.

    Args:
        adapters: of the candidates that are asked, beside the model; see `JoiningBuilder.join`.
    """

    def __init__(
        self, live: LiveModel, frame: Frame, adapters: "Sequence[LoRARequest]" = ()
    ) -> None:
        self.adapters = tuple(adapters)
        self._live = live
        self._turn = live.turn
        self._frame = frame
        most = live.positions if frame.positions is None else min(frame.positions, live.positions)
        self._reader = Reader(frame.tokenizer, most)
        self._on_pass: list[Callable[[], None]] = []

    @classmethod
    def joined(cls, engines: "Sequence[VllmEngine]") -> "VllmEngine":
        """Asks the candidates of all of these; see `JoiningBuilder.join`.

        Raises:
            CandidateError: vLLM was started anew when one of them was built, without the others.
        """
        first = engines[0]
        if any(own._live is not first._live for own in engines):
            raise CandidateError(
                "vllm was started anew for one with a larger rank, or of other modules"
            )
        return cls(first._live, first._frame, [one for own in engines for one in own.adapters])

    @property
    def reader(self) -> Reader:
        return self._reader

    def generate(
        self, prompts: Sequence[str], how: Greedy, images: Sequence[bytes] | None = None
    ) -> list[Text | None]:
        if images is not None:
            raise SpecError("evaluation.engine: vllm is not asked about images; write transformers")
        ends = Ends(self._reader.tokenizer, self._frame.eos, prompts, how.stop, how.thinking)
        encoded = encode_texts(self._reader, prompts, how.max_new_tokens, how.too_long)
        if not all(encoded):
            raise SpecError("a prompt has no tokens, and vLLM continues none; give it a text")
        own = self._adapters_of(encoded)
        with self._all_finite():
            found = self._current.continuations(
                encoded, own, how.max_new_tokens, ends.tokens, ends.reached, self._count
            )
        return [ends.text(tokens) for tokens in found]

    def log_likelihoods(
        self, pairs: Sequence[tuple[str, str]], too_long: Cut | None = None
    ) -> list[float]:
        encoded = encode_pairs(self._reader, pairs, too_long)
        return [found.total for found in self.likelihoods(encoded)]

    def likelihoods(self, texts: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
        found = self._log_probabilities(texts)
        return [
            Likelihood(float(sum(one for one, _ in values)), all(rank == 1 for _, rank in values))
            for values in found
        ]

    def negative_log_likelihoods(
        self, texts: Sequence[str], too_long: Cut | None = None
    ) -> list[tuple[float, int]]:
        encoded = encode_texts(self._reader, texts, 0, too_long)
        found = self._log_probabilities([(tokens, 1) for tokens in encoded])
        sums = [sum(one for one, _ in values) for values in found]
        return [
            (-total, len(values)) if values else (0.0, 0)
            for total, values in zip(sums, found, strict=True)
        ]

    def costs(self) -> dict[str, float]:
        return self._frame.costs

    @property
    def has_raw(self) -> bool:
        return False

    def raw(self, who: str) -> RawModel:
        raise no_raw_model("vllm", who)

    @contextmanager
    def counting(self, on_pass: Callable[[], None]) -> Iterator[None]:
        self._on_pass.append(on_pass)
        try:
            yield
        finally:
            self._on_pass.remove(on_pass)

    def close(self) -> None:
        """Does nothing: the next model takes the place of this one in vLLM."""

    def _log_probabilities(
        self, texts: Sequence[tuple[list[int], int]]
    ) -> list[list[tuple[float, int]]]:
        with self._all_finite():
            own = self._adapters_of(texts)
            return self._current.log_probabilities(texts, own, self._count)

    def _adapters_of(self, texts: Sequence[object]) -> "Sequence[LoRARequest | None]":
        """Of each text its adapter: of as many parts of them as there are adapters."""
        if not self.adapters:
            return [None] * len(texts)
        part = len(texts) // len(self.adapters)
        assert part * len(self.adapters) == len(texts)
        return [adapter for adapter in self.adapters for _ in range(part)]

    @contextmanager
    def _all_finite(self) -> Iterator[None]:
        """Refuses answers of several candidates of which one may have spoilt those of others.

        Raises:
            CandidateError: one computes NaN or infinities, which others may have read.
        """
        yield
        if len(self.adapters) > 1 and not self._current.is_finite:
            raise CandidateError("a candidate computes NaN or infinities")

    @property
    def _current(self) -> LiveModel:
        is_there = not self._live.is_closed and self._live.has(self.adapters)
        if not is_there or self._live.turn != self._turn:
            raise RuntimeError("vLLM has failed, or another model has taken this one's place")
        return self._live

    def _count(self) -> None:
        for on_pass in self._on_pass:
            on_pass()


def frame_of(folder: Path, spec: EvaluationSpec) -> Frame:
    """What the files of a checkpoint say beside its weights."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if (folder / GENERATION_CONFIG).is_file():
        generation = GenerationConfig.from_pretrained(folder)
    else:
        generation = GenerationConfig.from_model_config(config)
    dtype = spec.dtype or str(config.dtype or "float32").removeprefix("torch.")
    return Frame(
        network=Network(config, dtype),
        tokenizer=AutoTokenizer.from_pretrained(folder, trust_remote_code=False),
        positions=positions(config),
        eos=tuple(end_ids(generation.to_dict())),
        costs=model_costs(meta_model(config, "config.json")),
    )
