"""Stacks of one depth: shorter ones are filled up with layers that do nothing.

A layer of zeros adds zero to the residual stream, so that it gives what it is given.
"""

from collections.abc import Iterable, Iterator

import torch
from transformers import PretrainedConfig

from evomerge_optuna.models.shards import NamedTensor


def filled_up(
    tensors: Iterable[NamedTensor], layers: str, count: int, depth: int
) -> Iterator[NamedTensor]:
    """A stack's tensors, and those of further layers, all zeros.

    Args:
        layers: the name of the list of layers, as `model.layers`.
        count: how many the stack has.
        depth: how many it is to have.
    """
    last = f"{layers}.{count - 1}."
    for name, tensor in tensors:
        yield name, tensor
        if name.startswith(last):
            for index in range(count, depth):
                yield f"{layers}.{index}.{name.removeprefix(last)}", torch.zeros_like(tensor)


def deeper(config: PretrainedConfig, depth: int) -> PretrainedConfig:
    """The configuration with more layers, each like the last one."""
    content = config.to_dict()
    count: int = config.num_hidden_layers
    for name, value in content.items():
        if isinstance(value, list) and len(value) == count:
            content[name] = value + value[-1:] * (depth - count)
    content[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = depth
    return type(config).from_dict(content)
