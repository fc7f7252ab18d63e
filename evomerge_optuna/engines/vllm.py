"""The engine of vLLM: one model in the worker for a whole study, into which candidates are put."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evomerge_optuna.engines.base import Candidate, Greedy, Likelihood, RawModel, no_raw_model
from evomerge_optuna.engines.costs import model_costs
from evomerge_optuna.engines.encoding import encode_pairs, encode_texts
from evomerge_optuna.engines.endings import Ends
from evomerge_optuna.engines.live import LiveModel, Network, check_vllm, live_model, memory_of_vllm
from evomerge_optuna.engines.stops import Text
from evomerge_optuna.errors import SpecError
from evomerge_optuna.merging.filling import deeper, filled_up
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.plan import mergekit_errors
from evomerge_optuna.merging.recipe_merger import RecipeMerger
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.architectures import stack_names
from evomerge_optuna.models.ends import GENERATION_CONFIG, end_ids
from evomerge_optuna.models.layout import meta_model
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.models.shards import NamedTensor, read_tensors
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spec import Cut, EvaluationSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    """

    def __init__(self, live: LiveModel, frame: Frame) -> None:
        self._live = live
        self._turn = live.turn
        self._frame = frame
        most = live.positions if frame.positions is None else min(frame.positions, live.positions)
        self._reader = Reader(frame.tokenizer, most)
        self._on_pass: list[Callable[[], None]] = []

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
        found = self._current.continuations(
            encoded, how.max_new_tokens, ends.tokens, ends.reached, self._count
        )
        return [ends.text(tokens) for tokens in found]

    def log_likelihoods(
        self, pairs: Sequence[tuple[str, str]], too_long: Cut | None = None
    ) -> list[float]:
        encoded = encode_pairs(self._reader, pairs, too_long)
        return [found.total for found in self.likelihoods(encoded)]

    def likelihoods(self, texts: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
        found = self._current.log_probabilities(texts, self._count)
        return [
            Likelihood(float(sum(one for one, _ in values)), all(rank == 1 for _, rank in values))
            for values in found
        ]

    def negative_log_likelihoods(
        self, texts: Sequence[str], too_long: Cut | None = None
    ) -> list[tuple[float, int]]:
        encoded = encode_texts(self._reader, texts, 0, too_long)
        found = self._current.log_probabilities([(tokens, 1) for tokens in encoded], self._count)
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

    @property
    def _current(self) -> LiveModel:
        if self._live.is_closed or self._live.turn != self._turn:
            raise RuntimeError("vLLM has failed, or another model has taken this one's place")
        return self._live

    def _count(self) -> None:
        for on_pass in self._on_pass:
            on_pass()


class Builder:
    """Puts candidates into vLLM; see `CandidateBuilder`.

    Args:
        spec: names the merger of merge recipes, the device, the memory limit, and the dtype in
            which models run; their digest is that of the recipe's own dtype.
        say: is given a line about what is kept in memory, once.
    """

    def __init__(self, spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None) -> None:
        check_vllm(spec)
        self._spec = spec
        self._say = say
        self._structure = ""
        self._frame: Frame | None = None
        self._depth = 0  # layers of the deepest stack

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        """Starts vLLM, too: behind what the merger keeps, since it takes of what is left."""
        assert not isinstance(recipe, AdapterRecipe)  # `lacks` says so
        self._merger.load(recipe, layers_of)
        self._live_for(recipe, self._frame_of(self._merger.stream(recipe)))

    def build(self, recipe: Recipe) -> Candidate:
        assert not isinstance(recipe, AdapterRecipe)
        stream = self._merger.stream(recipe)
        frame = self._frame_of(stream)
        live = self._live_for(recipe, frame)
        live.put_in(self._filled_up(recipe, frame, stream))
        digest = stream.digest()
        return Candidate(VllmEngine(live, frame), lambda: digest)

    def _live_for(self, recipe: Recipe, frame: Frame) -> LiveModel:
        """What a recipe's model is put into; of stacks one as deep as the deepest so far."""
        network = frame.network
        if isinstance(recipe, StackRecipe):
            self._depth = max(self._depth, len(recipe.steps))
            network = replace(network, config=deeper(network.config, self._depth))
        return live_model(network, self._spec)

    def _filled_up(
        self, recipe: Recipe, frame: Frame, tensors: Iterable[NamedTensor]
    ) -> Iterable[NamedTensor]:
        if not isinstance(recipe, StackRecipe):
            return tensors
        names = stack_names(frame.network.config.model_type, recipe.embeddings)
        return filled_up(tensors, names.layers, len(recipe.steps), self._depth)

    def _frame_of(self, stream: Stream) -> Frame:
        if self._frame is None or stream.structure != self._structure:
            with TemporaryDirectory() as name, mergekit_errors():
                stream.write_files_beside_weights(Path(name))
                self._frame = frame_of(Path(name), self._spec)
            self._structure = stream.structure
        return self._frame

    @cached_property
    def _merger(self) -> RecipeMerger:
        spec, engine = self._spec, memory_of_vllm(self._spec).engine
        return RecipeMerger(spec.device, self._make_merger, spec.memory_limit, engine)

    def _make_merger(self) -> MergeMerger:
        if self._spec.merger == "checkpoint":
            return MergekitMerger(self._spec.device)
        spec, engine = self._spec, memory_of_vllm(self._spec).engine
        return ResidentMerger(spec.device, spec.memory_limit, self._say, engine)


def load_engine(folder: Path, spec: EvaluationSpec) -> VllmEngine:
    """A checkpoint in vLLM, in the place of what was there; see `EngineKind` for what it raises."""
    from transformers import AutoModelForCausalLM

    check_vllm(spec)
    complete_model(AutoModelForCausalLM, folder, device_map="meta")  # reads no weight
    frame = frame_of(folder, spec)
    live = live_model(frame.network, spec)
    live.put_in(read_tensors(folder))
    return VllmEngine(live, frame)


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
