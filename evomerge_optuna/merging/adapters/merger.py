"""The merger of adapters: reads each once, and gives the tensors of their merges."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.explain import one_line
from evomerge_optuna.merging.adapters.arithmetic import Part, merge_module
from evomerge_optuna.methods import ADAPTER_METHODS, AdapterMethod
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, split_adapter
from evomerge_optuna.models.digest import Digest
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES
from evomerge_optuna.models.lora import (
    BaseModules,
    LoraHalves,
    LoraHeader,
    base_modules,
    layer_of,
    lora_headers,
    lora_settings,
    read_lora,
    tensor_name,
)
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.models.sources.adapted import adapter_folder
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from evomerge_optuna.spec import AdapterStudySpec


@dataclass(frozen=True)
class Adapter:
    """An adapter in memory.

    Attributes:
        folder: where it lies.
        halves: A and B by module.
        headers: what is known of them.
    """

    folder: Path
    halves: Mapping[str, LoraHalves]
    headers: Mapping[str, LoraHeader]


class AdapterMerger:
    """Gives the streams of adapter recipes. Adapters are read once and kept in memory.

    Merges are made on the CPU, where masks and roundings are the same whatever runs the model.
    """

    def __init__(self) -> None:
        self._adapters: dict[str, Adapter] = {}
        self._modules: dict[str, BaseModules] = {}

    def load(self, recipe: AdapterRecipe) -> None:
        """Reads the adapters of a recipe.

        Raises:
            SpecError, OSError: a file cannot be read.
        """
        for name in recipe.adapters:
            if name not in self._adapters:
                folder = adapter_folder(name)
                self._adapters[name] = Adapter(
                    folder, dict(read_lora(folder)), lora_headers(folder, name)
                )
        if recipe.base_model not in self._modules:
            config = OpenedModel(recipe.base_model).config
            self._modules[recipe.base_model] = base_modules(config, recipe.base_model)

    def stream(self, recipe: AdapterRecipe) -> "AdapterStream":
        """The recipe's adapter; its tensors are made when they are asked for.

        Raises:
            SpecError, OSError: a file cannot be read.
            CandidateError: there is no such method, or it does not merge these adapters.
        """
        self.load(recipe)
        adapters = {name: self._adapters[name] for name in recipe.adapters}
        if recipe.random is not None:
            generator = torch.Generator().manual_seed(recipe.random)
            adapters = {name: _at_random(own, generator) for name, own in adapters.items()}
        return AdapterStream(recipe, adapters, self._modules[recipe.base_model])


class AdapterStream:
    """An adapter on its way: named tensors as peft's file has them, and the files beside it.

    Every module has the same rank, filled up with zeros where it needs less, and scaling 1: so
    every runtime reads it right, and an adapter of the same structure takes its place.

    Attributes:
        rank: of A and B of every module.
        structure: streams of equal structure have tensors of the same names and shapes.
    """

    def __init__(
        self, recipe: AdapterRecipe, adapters: Mapping[str, Adapter], base: BaseModules
    ) -> None:
        if recipe.method not in ADAPTER_METHODS:
            raise CandidateError(f"there is no method {recipe.method} that merges adapters")
        self._recipe = recipe
        self._adapters = adapters
        self._base = base
        self._method = ADAPTER_METHODS[recipe.method]
        self._digest = Digest()
        self._lost: list[float] = []  # squared norms of what was cut off modules
        self._kept = 0.0  # that of all that was not
        every = {m: h for adapter in adapters.values() for m, h in adapter.headers.items()}
        modules = sorted(every, key=lambda name: (base.places.get(name, -1), name))
        self.headers = {module: every[module] for module in modules}
        self.rank = merged_rank(
            self._method, [adapter.headers for adapter in adapters.values()], recipe.max_rank
        )
        self.structure = f"{self.rank} {' '.join(modules)}"

    def __iter__(self) -> Iterator[NamedTensor]:
        """A and B of each module, in the order of the base model's modules.

        Raises:
            CandidateError: they cannot be merged.
        """
        state = torch.Generator().manual_seed(self._recipe.seed).get_state()
        for module, header in self.headers.items():
            # Whoever takes the tensors may draw meanwhile.
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(state)
                try:
                    halves = self._merged(module, header)
                except RuntimeError as error:
                    reason = one_line(error, 200)
                    raise CandidateError(f"{module}: cannot be merged: {reason}") from error
                state = torch.get_rng_state()
            for half, tensor in halves.items():
                name = tensor_name(module, half, is_embedding=header.is_embedding)
                self._digest.add_held(name, tensor)
                yield name, tensor

    def complete(self) -> None:
        """All tensors have passed.

        Raises:
            NotFiniteError: a value is NaN or infinite.
        """
        self._digest.complete()

    def digest(self) -> str:
        """SHA-256 of the adapter, taken as its tensors passed; all must have passed.

        Raises:
            NotFiniteError: a value is NaN or infinite.
        """
        return self._digest.hexdigest()

    @property
    def lost(self) -> float | None:
        """The norm of what cutting its rank lost, as a share of the whole; None: it cut nothing."""
        lost = sum(self._lost)
        whole = lost + self._kept
        return (lost / whole) ** 0.5 if self._lost and whole else None

    def settings(self, base_model: str) -> dict[str, Any]:
        """The content of the adapter's configuration.

        Args:
            base_model: the base model as others find it.
        """
        name, at, revision = base_model.partition("@")
        first = next(iter(self._adapters.values()))
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": name,
            "revision": revision if at else None,
            "inference_mode": True,
            "r": self.rank,
            "lora_alpha": self.rank,
            "lora_dropout": 0.0,
            "use_rslora": False,
            "bias": "none",
            "init_lora_weights": True,
            "fan_in_fan_out": bool(lora_settings(first.folder, "adapter").get("fan_in_fan_out")),
            "target_modules": list(self.headers),
        }

    def write_files_beside_weights(self, folder: Path, base_model: str) -> None:
        """Writes the adapter's configuration, and the tokenizer that it reads with.

        The tokenizer is written where one lies beside an adapter; else the base model's serves.

        Raises:
            OSError: a file cannot be read or written.
        """
        content = json.dumps(self.settings(base_model), indent=2) + "\n"
        (folder / ADAPTER_CONFIG).write_text(content, encoding="utf-8")
        if split_adapter(self._recipe.reads_as)[1] is None:
            return
        beside = adapter_folder(self._recipe.reads_as)
        for file in TOKENIZER_FILES:
            if (beside / file).is_file():
                shutil.copyfile(beside / file, folder / file)

    def _merged(self, module: str, header: LoraHeader) -> dict[str, torch.Tensor]:
        group = self._group_of(module)
        parts = [
            Part(
                halves.a,
                halves.b,
                adapter.headers[module].scaling,
                **self._values(group, name, module, header),
            )
            for name, adapter in self._adapters.items()
            if (halves := adapter.halves.get(module)) is not None
        ]
        found = merge_module(
            self._method,
            parts,
            self.rank,
            count_signs=bool(self._recipe.options.get("count_signs", False)),
            # peft takes an embedding's product with a row for each token, too.
            transposed=header.is_embedding or module in self._base.transposed,
        )
        self._kept += found.norm
        if found.lost is not None:
            self._lost.append(found.lost)
        a = torch.zeros(self.rank, found.a.shape[1], dtype=found.a.dtype)
        b = torch.zeros(found.b.shape[0], self.rank, dtype=found.b.dtype)
        a[: found.a.shape[0]] = found.a
        b[:, : found.b.shape[1]] = found.b
        return {"A": a, "B": b}

    def _group_of(self, module: str) -> ModuleGroup:
        layer = self._layer(module)
        for group in self._recipe.groups:
            in_layers = group.layers is None or group.layers[0] <= layer < group.layers[1]
            if in_layers and (group.filter is None or group.filter in module):
                return group
        raise CandidateError(f"no group of the recipe has the module {module}")

    def _values(
        self, group: ModuleGroup, adapter: str, module: str, header: LoraHeader
    ) -> dict[str, float]:
        """The values of an adapter's parameters in this module."""
        most = max(1, self._recipe.layers - 1)
        depth = self._layer(module) / most
        return {
            name: _between(value, depth) if isinstance(value, tuple) else value
            for name, value in group.values[adapter].items()
        }

    def _layer(self, module: str) -> int:
        """Its layer; embeddings are in the first, and what is behind all layers in the last."""
        layer = layer_of(module)
        if layer is not None:
            return layer
        return 0 if self.headers[module].is_embedding else self._recipe.layers - 1


def merged_rank(
    method: AdapterMethod, adapters: Sequence[Mapping[str, LoraHeader]], max_rank: int | None
) -> int:
    """The rank of a merge of these adapters.

    Args:
        adapters: of each the modules that it changes.
    """
    ranks = [{module: h.rank for module, h in adapter.items()} for adapter in adapters]
    most = max(max(own.values()) for own in ranks)
    if method.rank == "cut":
        return max_rank or most
    if method.rank == "sum":
        modules = {module for own in ranks for module in own}
        most = max(sum(own.get(module, 0) for own in ranks) for module in modules)
    return most if max_rank is None else min(most, max_rank)


def _at_random(adapter: Adapter, generator: torch.Generator) -> Adapter:
    """An adapter of the same shapes and norms whose numbers are drawn."""

    def drawn(own: torch.Tensor) -> torch.Tensor:
        numbers = torch.randn(own.shape, generator=generator, dtype=own.dtype)
        scaled: torch.Tensor = numbers * (own.norm() / numbers.norm())
        return scaled

    halves = {
        module: LoraHalves(drawn(own.a), drawn(own.b))
        for module, own in sorted(adapter.halves.items())
    }
    return replace(adapter, halves=halves)


def adapters_size(spec: AdapterStudySpec) -> tuple[int, int]:
    """Bytes of a study's adapters in memory, and of the largest merge of them."""
    headers = [lora_headers(adapter_folder(name), name) for name in spec.models.values()]
    modules = {module: header for own in headers for module, header in own.items()}
    rank = max(merged_rank(row, headers, spec.merge.max_rank) for row in spec.merge.rows)
    merged = sum(rank * (header.inputs + header.outputs) for header in modules.values())
    return 4 * sum(h.count for own in headers for h in own.values()), 4 * merged


def _between(values: Sequence[float], depth: float) -> float:
    """The value at a depth from 0 to 1, on straight lines between points."""
    place = min(depth, 1.0) * (len(values) - 1)
    low = min(int(place), len(values) - 2)
    share = place - low
    return (1 - share) * values[low] + share * values[low + 1]
