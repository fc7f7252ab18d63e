"""The stacked model: layers of loaded models in another order, with no weight copied."""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from evomerge_optuna.families import merged_folder
from evomerge_optuna.merging.merged import Merged, MergeMerger
from evomerge_optuna.models.architectures import StackNames, stack_names
from evomerge_optuna.models.digest import digest_tensors
from evomerge_optuna.models.ends import with_united_ends
from evomerge_optuna.models.loading import in_dtype, load_model
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe


class StackedMerger:
    """Builds stacks of layers in memory: the models are loaded once, a candidate shares them.

    Args:
        device: "auto", "cpu" or "cuda".
        make_merger: makes the merger of a merge among the models; each has its own, which keeps
            the merge until another recipe takes its name.
    """

    def __init__(self, device: str, make_merger: Callable[[], MergeMerger]) -> None:
        self._device = device
        self._make_merger = make_merger
        self._loaded: dict[str, Merged] = {}
        self._mergers: dict[str, MergeMerger] = {}
        self._merged: dict[str, tuple[MergeRecipe, Merged]] = {}

    def load(self, recipe: StackRecipe, layers_of: Collection[str] = ()) -> None:
        """Reads the recipe's models and these.

        Raises:
            CandidateError, NotFiniteError, OSError: as `merge`.
        """
        for name in dict.fromkeys([*recipe.models(), *layers_of]):
            if name in recipe.merges:
                self._merger_of(name).load(recipe.merges[name])
            else:
                self._model(name, recipe)

    def merge(self, recipe: StackRecipe) -> Merged:
        """The recipe's model, and a digest of the recipe with all weights it can use.

        Raises:
            CandidateError: one of its merges cannot be built.
            NotFiniteError: a model has NaN or infinite weights.
            OSError: a model's file cannot be read.
        """
        found = {name: self._model(name, recipe) for name in recipe.models()}
        models = {name: merged.model for name, merged in found.items()}
        names = stack_names(models[recipe.embeddings].config.model_type, recipe.embeddings)
        stacked = stacked_model(recipe, models, names)
        stacked.generation_config = stacked_ends(recipe, found)
        return Merged(
            stacked,
            found[recipe.embeddings].tokenizer,
            stack_digest(recipe, {name: merged.digest for name, merged in found.items()}),
        )

    def _model(self, name: str, recipe: StackRecipe) -> Merged:
        if name in recipe.merges:
            return self._merge_named(name, recipe.merges[name])
        if name not in self._loaded:
            self._loaded[name] = load_source(name, recipe.dtype, self._device)
        return self._loaded[name]

    def _merge_named(self, name: str, wanted: MergeRecipe) -> Merged:
        if name not in self._merged or self._merged[name][0] != wanted:
            self._merged.pop(name, None)  # before the next one needs its memory
            self._merged[name] = (wanted, self._merger_of(name).merge(wanted))
        return self._merged[name][1]

    def _merger_of(self, name: str) -> MergeMerger:
        if name not in self._mergers:
            self._mergers[name] = self._make_merger()
        return self._mergers[name]


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
    return Merged(in_dtype(model, dtype) if dtype else model, tokenizer, digest)


def stacked_ends(recipe: StackRecipe, models: Mapping[str, Merged]) -> Any:
    """The stack's generation config: that of its embeddings' model with the ends of all."""
    own = models[recipe.embeddings]
    others = [(merged.model, merged.tokenizer) for merged in models.values()]
    return with_united_ends(own.model, own.tokenizer, others)


def stack_digest(recipe: StackRecipe, digests: Mapping[str, str]) -> str:
    """SHA-256 over the recipe and the digests of its models, in their order of appearance."""
    whole = hashlib.sha256(recipe.canonical().encode())
    for name in recipe.models():
        whole.update(digests[name].encode())
    return whole.hexdigest()


def stacked_model(recipe: StackRecipe, models: Mapping[str, Any], names: StackNames) -> Any:
    """A causal language model that passes its hidden state through the recipe's steps.

    h_t = layer_t(w_t h_{t-1}) (paper, section 3.2). It shares every parameter with the models it
    is made of; each step has a place of its own in the KV cache, so that generation works as ever.

    Args:
        models: loaded models by the recipe's names, of one architecture and width.
    """
    config = stacked_config(recipe, {name: model.config for name, model in models.items()})
    layers = [
        _step(models[step.model].get_submodule(names.layers)[step.layer], index, step.scale)
        for index, step in enumerate(recipe.steps)
    ]
    head = models[recipe.head]
    stacked = _sharing(models[recipe.embeddings])
    prefix, _, layer_list = names.layers.rpartition(".")
    body = _sharing(stacked.get_submodule(prefix))
    stacked._modules[prefix] = body
    body._modules[layer_list] = torch.nn.ModuleList(layers)
    body._modules[names.final_norm.rpartition(".")[2]] = head.get_submodule(names.final_norm)
    stacked._modules["lm_head"] = head.get_submodule("lm_head")
    stacked.config = body.config = config
    return stacked


def stacked_config(recipe: StackRecipe, configs: Mapping[str, Any]) -> Any:
    """The embeddings' model's configuration with as many layers as there are steps.

    What a configuration lists for each layer (`layer_types` and the like) follows the path.
    """
    own = configs[recipe.embeddings]
    content = own.to_dict()
    for name, value in list(content.items()):
        if isinstance(value, list) and len(value) == own.num_hidden_layers:
            listed = {model: config.to_dict()[name] for model, config in configs.items()}
            content[name] = [listed[step.model][step.layer] for step in recipe.steps]
    content[own.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(recipe.steps)
    config = type(own).from_dict(content)
    config._attn_implementation = own._attn_implementation
    return config


def _step(layer: Any, index: int, scale: float) -> Any:
    """The layer with its own index in the KV cache, and with its input scaled."""
    step = _indexed(layer, index)
    if scale != 1:
        step._forward_pre_hooks = OrderedDict()
        step.register_forward_pre_hook(lambda _, inputs: (inputs[0] * scale, *inputs[1:]))
    return step


def _indexed(module: Any, index: int) -> Any:
    """The module and those of its parts that know their layer's index, with another index."""
    clone = _sharing(module)
    if hasattr(clone, "layer_idx"):
        clone.layer_idx = index
    for name, child in module._modules.items():
        if child is not None and any(hasattr(part, "layer_idx") for part in child.modules()):
            clone._modules[name] = _indexed(child, index)
    return clone


def _sharing(module: Any) -> Any:
    """A module with the same parameters and parts, whose parts can be replaced."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    return clone
