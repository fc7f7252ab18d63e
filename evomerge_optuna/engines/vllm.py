"""The engine of vLLM: one model in the worker for a whole study, into which candidates are put.

Candidates that are adapters are put beside their base model: `vllm_adapters`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evomerge_optuna.engines.base import Candidate, Engine
from evomerge_optuna.engines.installed_vllm import check_vllm, memory_of_vllm
from evomerge_optuna.engines.live import LiveModel, live_model
from evomerge_optuna.engines.vllm_engine import Frame, VllmEngine, frame_of
from evomerge_optuna.merging.filling import deeper, filled_up
from evomerge_optuna.merging.mergekit_merger import MergekitMerger
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.plan import mergekit_errors
from evomerge_optuna.merging.recipe_merger import RecipeMerger
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.architectures import stack_names
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.shards import NamedTensor, read_tensors
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.recipes.recipe import Recipe, WholeRecipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    from evomerge_optuna.engines.vllm_adapters import AdapterCandidates


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
        self.room = spec.candidates or 1

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        """Starts vLLM, too: behind what the merger keeps, since it takes of what is left."""
        if isinstance(recipe, AdapterRecipe):
            return self._adapters.load(recipe)
        self._merger.load(recipe, layers_of)
        self._live_for(recipe, self._frame_of(self._merger.stream(recipe)))

    def build(self, recipe: Recipe) -> Candidate:
        if isinstance(recipe, AdapterRecipe):
            return self._adapters.build(recipe)
        stream = self._merger.stream(recipe)
        frame = self._frame_of(stream)
        live = self._live_for(recipe, frame)
        live.put_in(self._filled_up(recipe, frame, stream))
        digest = stream.digest()
        return Candidate(VllmEngine(live, frame), lambda: digest)

    def join(self, engines: Sequence[Engine]) -> VllmEngine:
        return self._adapters.join(engines)

    def _live_for(self, recipe: WholeRecipe, frame: Frame) -> LiveModel:
        """What a recipe's model is put into; of stacks one as deep as the deepest so far."""
        network = frame.network
        if isinstance(recipe, StackRecipe):
            self._depth = max(self._depth, len(recipe.steps))
            network = replace(network, config=deeper(network.config, self._depth))
        return live_model(network, self._spec)

    def _filled_up(
        self, recipe: WholeRecipe, frame: Frame, tensors: Iterable[NamedTensor]
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
    def _adapters(self) -> "AdapterCandidates":
        from evomerge_optuna.engines.vllm_adapters import AdapterCandidates

        return AdapterCandidates(self._spec, self.room)

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
