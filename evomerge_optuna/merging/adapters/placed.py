"""A base model in memory, on which one merged adapter after the other is put."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evomerge_optuna.merging.adapters.merger import AdapterMerger, AdapterStream
from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, has_tokenizer
from evomerge_optuna.models.loading import load_model
from evomerge_optuna.models.lora import lora_settings, tensor_name
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.adapter import AdapterRecipe

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class AdapterOnBase:
    """Holds a base model, and writes the adapters of recipes into the memory of one in it.

    The base model is not changed: peft adds what an adapter gives to what each module gives.

    Args:
        device: as in a spec, "auto" or "cuda:1".
        dtype: in which the base model runs; None: its own. Adapters run in float32, as peft has
            them.
    """

    def __init__(self, device: str, dtype: str | None = None) -> None:
        self._device = device
        self._dtype = dtype
        self._merger = AdapterMerger()
        self._base = ""
        self._structure = ""
        self._model: PreTrainedModel | None = None
        self._places: dict[str, torch.Tensor] = {}  # of A and B
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}
        self._adapted: PeftModel | None = None  # around the model, which has peft's layers in it

    def load(self, recipe: AdapterRecipe) -> None:
        """Reads the base model and the recipe's adapters.

        Raises:
            SpecError, OSError: a file cannot be read.
        """
        self._merger.load(recipe)
        self._base_of(recipe)

    def merge(self, recipe: AdapterRecipe) -> Merged:
        """The base model with the recipe's adapter; it is valid until the next merge.

        Raises:
            CandidateError: the recipe cannot be built, or a value is NaN or infinite.
            SpecError, OSError: a file cannot be read.
        """
        stream = self._merger.stream(recipe)
        model = self._base_of(recipe)
        if stream.structure != self._structure:
            self._make_room(model, stream)
        for name, tensor in stream:
            self._places[name].copy_(tensor)
        stream.complete()
        if recipe.reads_as not in self._tokenizers:
            self._tokenizers[recipe.reads_as] = OpenedModel(recipe.reads_as).tokenizer
        return Merged(model, self._tokenizers[recipe.reads_as], stream.digest)

    def _base_of(self, recipe: AdapterRecipe) -> "PreTrainedModel":
        if self._model is None or self._base != recipe.base_model:
            self._model = self._adapted = None  # before the next one needs its memory
            self._structure = ""
            folder = OpenedModel(recipe.base_model).folder
            self._model, _ = load_model(folder, self._device, self._dtype)
            self._base = recipe.base_model
        return self._model

    def _make_room(self, model: "PreTrainedModel", stream: AdapterStream) -> None:
        """Gives the model an adapter of the stream's structure, in the place of the last one."""
        from peft import LoraConfig, get_peft_model

        settings = {k: v for k, v in stream.settings(self._base).items() if k != "peft_type"}
        with quiet():
            if self._adapted is not None:
                self._adapted.unload()
            self._adapted = get_peft_model(model, LoraConfig(**settings))
        self._adapted.requires_grad_(False).eval()
        self._places = _places(model)
        self._structure = stream.structure


def load_with_adapter(
    folder: Path, device: str, dtype: str | None = None
) -> "tuple[PreTrainedModel, Reader]":
    """An adapter's folder as plain peft loads it, on the base model that it names.

    Raises:
        SpecError: a file cannot be read, or the device is not there.
    """
    from peft import PeftModel

    settings = lora_settings(folder, str(folder / ADAPTER_CONFIG))
    name, revision = str(settings["base_model_name_or_path"]), settings.get("revision")
    base = OpenedModel(f"{name}@{revision}" if revision else name)
    model, _ = load_model(base.folder, device, dtype)
    with quiet():
        adapted = PeftModel.from_pretrained(model, folder)
    named = OpenedModel(str(folder)) if has_tokenizer(folder) else base
    return adapted.get_base_model().eval(), Reader(named.tokenizer, positions(model.config))


def _places(model: "PreTrainedModel") -> dict[str, torch.Tensor]:
    """A and B in a model, by their names in an adapter's file."""
    found = {}
    for name, parameter in model.named_parameters():
        for half in "AB":
            for is_embedding, part in (
                (False, f".lora_{half}."),
                (True, f".lora_embedding_{half}."),
            ):
                if part in name:
                    module = name.partition(part)[0]
                    found[tensor_name(module, half, is_embedding=is_embedding)] = parameter.data
    return found
