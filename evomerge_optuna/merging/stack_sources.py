"""The models whose layers a stack has: loaded once, merges among them made when they change.

Where they do not fit on the device together, they stay in the machine's memory, or mapped from
their files, and what a stack has of them is copied to the device for it.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from evomerge_optuna.devices import pinned, pinned_size, torch_device
from evomerge_optuna.families import merged_folder
from evomerge_optuna.merging.memory import Budget, Room, size_of
from evomerge_optuna.merging.merged import Merged, ModelMaker
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.ends import with_united_ends
from evomerge_optuna.models.headers import STORED, Header, headers_in
from evomerge_optuna.models.loading import in_dtype, load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe

if TYPE_CHECKING:
    from transformers import GenerationConfig


class StackSources:
    """Keeps the models that stacks are made of.

    Args:
        device: as in a spec, "auto" or "cuda:1".
        model_maker: gives what makes the merges among the models; each has its own, which keeps
            the merge until another recipe takes its name.
        memory_limit: bytes to keep on the device, None for 70% of what is free.
        engine: bytes of the device that the receiver of the stacks' tensors takes.
        say: is given a line about where the models are, if they are not on the device.

    Attributes:
        device: where stacks run.
    """

    def __init__(
        self,
        device: str,
        model_maker: Callable[[], ModelMaker],
        memory_limit: int | None = None,
        say: Callable[[str], None] = lambda _: None,
        engine: int | None = None,
    ) -> None:
        self.device = torch_device(device)
        self._named = device
        self._memory_limit = memory_limit
        self._say = say
        self._engine = engine
        self._room: Room | None = None  # what is left, once the first models are known
        self._model_maker = model_maker
        self._loaded: dict[str, Merged] = {}
        self._makers: dict[str, ModelMaker] = {}
        self._merged: dict[str, tuple[MergeRecipe, Merged]] = {}

    def load(self, recipe: StackRecipe, layers_of: Collection[str] = ()) -> None:
        """Reads the recipe's models, and the models of these names.

        Raises:
            CandidateError, NotFiniteError, OSError: as `of`.
        """
        names = dict.fromkeys([*recipe.models(), *layers_of])
        self._plan(names, recipe)
        for name in names:
            if name in recipe.merges:
                self._maker_of(name).load(recipe.merges[name])
            else:
                self._model(name, recipe)

    def of(self, recipe: StackRecipe) -> dict[str, Merged]:
        """The recipe's models by name.

        Raises:
            CandidateError: one of its merges cannot be built.
            NotFiniteError: a model has NaN or infinite weights.
            OSError: a model's file cannot be read.
        """
        self._plan(recipe.models(), recipe)
        return {name: self._model(name, recipe) for name in recipe.models()}

    def _plan(self, names: Collection[str], recipe: StackRecipe) -> None:
        """Decides once whether the models stay on the device, all or none of the first ones."""
        if self._room is not None:
            return
        self._room = Room.of(self._named, self._memory_limit, self._engine or 0)
        headers = [_headers(name) for name in names if name not in recipe.merges]
        need = sum(size_in(model, recipe.dtype) for model in headers)
        mapped = all(is_mapped(model, recipe.dtype, self.device) for model in headers)
        if need > self._room.device.left and not mapped:
            self._room = replace(self._room, device=Budget(limit=0))
            self._say(
                f"models in memory: {need / 1e9:.2f} GB do not fit on the device; a stack's layers "
                "are copied to it for each candidate"
            )

    def _model(self, name: str, recipe: StackRecipe) -> Merged:
        if name in recipe.merges:
            return self._merge_named(name, recipe.merges[name])
        if name not in self._loaded:
            self._loaded[name] = self._load(name, recipe)
        return self._loaded[name]

    def _load(self, name: str, recipe: StackRecipe) -> Merged:
        assert self._room is not None  # see `_plan`
        headers = _headers(name)
        if is_mapped(headers, recipe.dtype, self.device):
            return load_source(name, None, self.device)
        if self._room.device.fits(size_in(headers, recipe.dtype)):
            return load_source(name, recipe.dtype, self.device)
        loaded = load_source(name, None, "cpu")
        if self._room.host.fits(sum(pinned_size(size_of(p)) for p in loaded.model.parameters())):
            for parameter in loaded.model.parameters():
                parameter.data = pinned(parameter.data, self.device)
        return loaded

    def _merge_named(self, name: str, wanted: MergeRecipe) -> Merged:
        if name not in self._merged or self._merged[name][0] != wanted:
            self._merged.pop(name, None)  # before the next one needs its memory
            self._merged[name] = (wanted, self._maker_of(name).merge(wanted))
        return self._merged[name][1]

    def _maker_of(self, name: str) -> ModelMaker:
        if name not in self._makers:
            self._makers[name] = self._model_maker()
        return self._makers[name]


def size_in(headers: Mapping[str, Header], dtype: str | None) -> int:
    """Bytes of a model's tensors in this dtype, or in their own."""
    return sum(Header(h.shape, STORED[dtype] if dtype else h.dtype).size for h in headers.values())


def is_mapped(headers: Mapping[str, Header], dtype: str | None, device: str) -> bool:
    """Is a loaded model but a view of its files? It takes memory as long as there is enough.

    Args:
        headers: of its files.
        dtype: in which it is to run; None: its own.
        device: where it is to run.
    """
    types = {header.dtype for header in headers.values()}
    return device == "cpu" and len(types) == 1 and (dtype is None or STORED[dtype] in types)


def _headers(name: str) -> Mapping[str, Header]:
    return headers_in(merged_folder(name), name)


def load_source(name: str, dtype: str | None, device: str) -> Merged:
    """A model's text part as it is, with the SHA-256 of its tensors as they are stored.

    Args:
        dtype: in which it is to run; None: its own.

    Raises:
        NotFiniteError: it has NaN or infinite weights.
        OSError: a file cannot be read.
    """
    model, tokenizer = load_model(merged_folder(name), device)
    digest = digest_tensors({n: p.detach() for n, p in model.named_parameters()})
    # Not model.to, by which rotary frequencies would be rounded, too.
    return Merged(in_dtype(model, dtype) if dtype else model, tokenizer, lambda: digest)


def stack_digest(recipe: StackRecipe, sources: Mapping[str, Merged]) -> str:
    """SHA-256 over the recipe and the digests of its models, in their order of appearance."""
    whole = hashlib.sha256(recipe.canonical().encode())
    for name in recipe.models():
        whole.update(sources[name].digest.encode())
    return whole.hexdigest()


def stack_ends(recipe: StackRecipe, sources: Mapping[str, Merged]) -> "GenerationConfig":
    """The stack's generation config: that of its embeddings' model with the ends of all."""
    own = sources[recipe.embeddings]
    others = [(merged.model, merged.tokenizer) for merged in sources.values()]
    return with_united_ends(own.model, own.tokenizer, others)
