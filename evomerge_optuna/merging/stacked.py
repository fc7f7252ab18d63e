"""The stacked model: layers of loaded models in another order.

No weight is copied that is on the device in the dtype of the stack.
"""

import copy
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TypeVar

import torch
from transformers import PretrainedConfig, PreTrainedModel

from evomerge_optuna.merging.merged import Merged
from evomerge_optuna.merging.stack_sources import StackSources, stack_digest, stack_ends
from evomerge_optuna.models.architectures import StackNames, stack_names
from evomerge_optuna.models.loading import on_device
from evomerge_optuna.models.transformers_internals import set_attention_like
from evomerge_optuna.recipes.stack import StackRecipe

_Module = TypeVar("_Module", bound=torch.nn.Module)


class StackedModels:
    """Makes stacks of layers in memory that share the weights of their sources."""

    def __init__(self, sources: StackSources) -> None:
        self._sources = sources
        self._copies: list[torch.nn.Parameter] = []  # of the last stack

    def load(self, recipe: StackRecipe, layers_of: Collection[str] = ()) -> None:
        """Reads the recipe's models, and the models of these names; see `StackSources.load`."""
        self._sources.load(recipe, layers_of)

    def merge(self, recipe: StackRecipe) -> Merged:
        """The recipe's model, and a digest of the recipe with all weights it can use.

        It is valid until the next one is made.

        Raises:
            CandidateError, NotFiniteError, OSError: see `StackSources.of`.
        """
        sources = self._sources.of(recipe)
        models = {name: merged.model for name, merged in sources.items()}
        names = stack_names(models[recipe.embeddings].config.model_type, recipe.embeddings)
        stacked = stacked_model(recipe, models, names)
        stacked.generation_config = stack_ends(recipe, sources)
        for parameter in self._copies:  # whoever still has the last stack does not keep its memory
            parameter.data = parameter.data.new_empty(0)
        own = {id(p) for model in models.values() for p in model.parameters()}
        stacked = on_device(stacked, self._sources.device, recipe.dtype)
        self._copies = [p for p in stacked.parameters() if id(p) not in own]
        tokenizer = sources[recipe.embeddings].tokenizer
        return Merged(stacked, tokenizer, lambda: stack_digest(recipe, sources))


def stacked_model(
    recipe: StackRecipe, models: Mapping[str, PreTrainedModel], names: StackNames
) -> PreTrainedModel:
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


def stacked_config(
    recipe: StackRecipe, configs: Mapping[str, PretrainedConfig]
) -> PretrainedConfig:
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
    set_attention_like(config, own)
    return config


def _step(layer: torch.nn.Module, index: int, scale: float) -> torch.nn.Module:
    """The layer with its own index in the KV cache, and with its input scaled."""
    step = _indexed(layer, index)
    if scale != 1:
        step._forward_pre_hooks = OrderedDict()
        step.register_forward_pre_hook(lambda _, inputs: (inputs[0] * scale, *inputs[1:]))
    return step


def _indexed(module: _Module, index: int) -> _Module:
    """The module and those of its parts that know their layer's index, with another index."""
    clone = _sharing(module)
    if hasattr(clone, "layer_idx"):
        clone.layer_idx = index  # type: ignore[assignment]
    for name, child in module._modules.items():
        if child is not None and any(hasattr(part, "layer_idx") for part in child.modules()):
            clone._modules[name] = _indexed(child, index)
    return clone


def _sharing(module: _Module) -> _Module:
    """A module with the same parameters and parts, whose parts can be replaced."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    return clone
