"""A second engine: it answers from a dictionary, without torch. It shows what an engine must do."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from evomerge_optuna.engines.base import (
    Candidate,
    EngineKind,
    Greedy,
    Likelihood,
    RawModel,
    no_raw_model,
)
from evomerge_optuna.engines.encoding import encode_pairs, encode_texts
from evomerge_optuna.engines.stops import Text, cut
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import Cut, EvaluationSpec


@dataclass
class DictionaryEngine:
    """Continues a prompt by what stands in the dictionary, and finds a text likely that is there.

    A token is worth 1 nat in a text that is there, and 2 in another.
    """

    reader: Reader
    texts: Mapping[str, str]  # continuations by prompt
    passes: list[Callable[[], None]] = field(default_factory=list)
    is_closed: bool = False

    def generate(
        self, prompts: Sequence[str], how: Greedy, images: Sequence[bytes] | None = None
    ) -> list[Text | None]:
        encode_texts(self.reader, prompts, how.max_new_tokens, how.too_long)
        self._pass()
        return [cut(self.texts.get(prompt, ""), how.stop) for prompt in prompts]

    def log_likelihoods(
        self, pairs: Sequence[tuple[str, str]], too_long: Cut | None = None
    ) -> list[float]:
        encoded = encode_pairs(self.reader, pairs, too_long)
        self._pass()
        return [
            -self._nats(prompt, continuation) * (len(whole) - given)
            for (prompt, continuation), (whole, given) in zip(pairs, encoded, strict=True)
        ]

    def likelihoods(self, texts: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
        self._pass()
        return [Likelihood(-2.0 * (len(whole) - given), False) for whole, given in texts]

    def negative_log_likelihoods(
        self, texts: Sequence[str], too_long: Cut | None = None
    ) -> list[tuple[float, int]]:
        counted = [max(0, len(ids) - 1) for ids in encode_texts(self.reader, texts, 0, too_long)]
        self._pass()
        known = {prompt + answer for prompt, answer in self.texts.items()}
        return [((2 - (t in known)) * n, n) for t, n in zip(texts, counted, strict=True)]

    def costs(self) -> dict[str, float]:
        return {"layers": 1, "parameters": len(self.texts), "flops_per_token": 0}

    @property
    def has_raw(self) -> bool:
        return False

    def raw(self, who: str) -> RawModel:
        raise no_raw_model("dictionary", who)

    @contextmanager
    def counting(self, on_pass: Callable[[], None]) -> Iterator[None]:
        self.passes.append(on_pass)
        yield
        self.passes.remove(on_pass)

    def close(self) -> None:
        self.is_closed = True

    def _pass(self) -> None:
        for on_pass in self.passes:
            on_pass()

    def _nats(self, prompt: str, continuation: str) -> float:
        return 1.0 if self.texts.get(prompt) == continuation.strip() else 2.0


class DictionaryBuilder:
    """One engine for a whole study: each recipe is a dictionary that is put into it.

    An odd recipe knows the answers, an even one does not.
    """

    def __init__(self, engine: DictionaryEngine) -> None:
        self._engine = engine
        self._answers = engine.texts
        self.loaded: list[Recipe] = []

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        self.loaded.append(recipe)

    def build(self, recipe: Recipe) -> Candidate:
        knows = int(recipe.digest(), 16) % 2
        self._engine.texts = self._answers if knows else {}
        return Candidate(self._engine, recipe.digest)


@dataclass
class JoinedDictionaries:
    """Several dictionaries that are asked at once: each for as large a part of the texts."""

    engines: Sequence[DictionaryEngine]

    @property
    def reader(self) -> Reader:
        return self.engines[0].reader

    def generate(self, prompts: Sequence[str], how: Greedy) -> list[Text | None]:
        return [t for one, part in self._parts(prompts) for t in one.generate(part, how)]

    def log_likelihoods(
        self, pairs: Sequence[tuple[str, str]], too_long: Cut | None = None
    ) -> list[float]:
        return [n for one, part in self._parts(pairs) for n in one.log_likelihoods(part, too_long)]

    def negative_log_likelihoods(
        self, texts: Sequence[str], too_long: Cut | None = None
    ) -> list[tuple[float, int]]:
        parts = self._parts(texts)
        return [n for one, part in parts for n in one.negative_log_likelihoods(part, too_long)]

    def _parts(self, texts: Sequence[Any]) -> list[tuple[DictionaryEngine, Sequence[Any]]]:
        size, rest = divmod(len(texts), len(self.engines))
        assert not rest
        return [(e, texts[n * size : (n + 1) * size]) for n, e in enumerate(self.engines)]


@dataclass
class JoiningDictionaries:
    """Builds dictionaries of which several can be asked at once. A recipe knows some answers."""

    reader: Reader
    answers: Mapping[str, str]
    room: int
    built: int = 0
    joined: list[int] = field(default_factory=list)  # how many were asked at once

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        pass

    def build(self, recipe: Recipe) -> Candidate:
        self.built += 1
        known = int(recipe.digest(), 16) % (len(self.answers) + 1)
        texts = dict(list(self.answers.items())[:known])
        return Candidate(DictionaryEngine(self.reader, texts), recipe.digest)

    def join(self, engines: Sequence[DictionaryEngine]) -> JoinedDictionaries:
        self.joined.append(len(engines))
        return JoinedDictionaries(engines)


def engine_kind(texts: Mapping[str, str], folder: Path) -> EngineKind:
    """What is registered of it."""
    reader = Reader(AutoTokenizer.from_pretrained(folder), positions=64)

    def builder(spec: EvaluationSpec, say: Callable[[str], None]) -> DictionaryBuilder:
        return DictionaryBuilder(DictionaryEngine(reader, texts))

    def load(place: Path, spec: EvaluationSpec) -> DictionaryEngine:
        return DictionaryEngine(reader, texts)

    return EngineKind(builder, load)
