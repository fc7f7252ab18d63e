"""Candidates that are adapters, in vLLM: the base model is put in once, and adapters beside it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from evomerge_optuna.engines.base import Candidate, Engine
from evomerge_optuna.engines.beside import AdapterRoom
from evomerge_optuna.engines.live import LiveModel, live_model
from evomerge_optuna.engines.vllm_engine import Frame, VllmEngine, frame_of
from evomerge_optuna.errors import SpecError
from evomerge_optuna.merging.adapters.merger import AdapterMerger, AdapterStream
from evomerge_optuna.models.lora import layer_of
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.shards import read_tensors
from evomerge_optuna.recipes.adapter import AdapterRecipe
from evomerge_optuna.spec import EvaluationSpec


class AdapterCandidates:
    """Puts adapters beside their base model; see `CandidateBuilder`.

    Args:
        room: how many of them are there at a time.
    """

    def __init__(self, spec: EvaluationSpec, room: int) -> None:
        self._spec = spec
        self._room = AdapterRoom(room, rank=1, modules=())  # for all that there were yet
        self._merger = AdapterMerger()
        self._frames: dict[tuple[str, str], Frame] = {}
        self._holds: tuple[LiveModel, str] | None = None  # and the base model in it

    def load(self, recipe: AdapterRecipe) -> None:
        """Reads the adapters, and starts vLLM with the base model."""
        self._live_for(recipe, self._merger.stream(recipe))

    def build(self, recipe: AdapterRecipe) -> Candidate:
        """The recipe's adapter; it is valid until as many others are built as there is room for."""
        stream = self._merger.stream(recipe)
        tensors = dict(stream)
        stream.complete()
        live = self._live_for(recipe, stream)
        adapter = live.put_beside(tensors, stream.settings(recipe.base_model))
        added = sum(tensor.numel() for tensor in tensors.values())
        frame = _with_more(self._frame_of(recipe), added)
        return Candidate(VllmEngine(live, frame, (adapter,)), stream.digest)

    def join(self, engines: Sequence[Engine]) -> VllmEngine:
        """See `JoiningBuilder`."""
        return VllmEngine.joined([cast(VllmEngine, engine) for engine in engines])

    def _live_for(self, recipe: AdapterRecipe, stream: AdapterStream) -> LiveModel:
        for module, header in stream.headers.items():
            if header.is_embedding or layer_of(module) is None:
                raise SpecError(
                    f"evaluation.engine: an adapter changes {module}, and vllm is given adapters "
                    "of the layers' linear modules alone; write engine: transformers"
                )
        self._room = self._room.beside(stream.rank, stream.headers)
        live = live_model(self._frame_of(recipe).network, self._spec, self._room)
        holds = live, recipe.base_model
        if self._holds != holds:
            live.put_in(read_tensors(OpenedModel(recipe.base_model).folder))
            self._holds = holds
        return live

    def _frame_of(self, recipe: AdapterRecipe) -> Frame:
        key = recipe.base_model, recipe.reads_as
        if key not in self._frames:
            frame = frame_of(OpenedModel(recipe.base_model).folder, self._spec)
            tokenizer = OpenedModel(recipe.reads_as).tokenizer
            self._frames[key] = replace(frame, tokenizer=tokenizer)
        return self._frames[key]


def _with_more(frame: Frame, parameters: int) -> Frame:
    """What the base model costs with so many parameters more, each multiplied with each token."""
    costs = frame.costs
    return replace(
        frame,
        costs=costs
        | {
            "parameters": costs["parameters"] + parameters,
            "flops_per_token": costs["flops_per_token"] + 2 * parameters,
        },
    )
