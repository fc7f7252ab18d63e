"""The groups of tensors that share their parameters."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from evomerge_optuna.spec import SearchedMerge


@dataclass(frozen=True)
class LayerGroup:
    """Tensors that share their parameters: a range of layers, a filter on tensor names, or both.

    Args:
        layers: the first, and the one after the last; None: all.
        filter: a part of the tensors' names; None: the tensors that no other filter matches.
    """

    name: str
    layers: tuple[int, int] | None = None
    filter: str | None = None

    def at(self, point: int | None) -> str:
        """The name of a parameter's place here: the group's, or that of a point along the depth."""
        if point is None:
            return self.name
        return f"p{point}.{self.name}" if self != _ALL else f"p{point}"


_ALL = LayerGroup("g0")


def layer_groups(merge: SearchedMerge, layers: int) -> tuple[LayerGroup, ...]:
    """The groups of a spec whose models have this many layers, from the input on."""
    return tuple(_groups(merge, layers))


def _blocks(merge: SearchedMerge) -> list[tuple[str, str]]:
    """The name of each block's group, as down.0 for down_blocks.0, and its filter.

    The first filter that a name contains counts, and single_transformer_blocks.0 contains
    transformer_blocks.0.
    """
    ordered = sorted(merge.block_filters, key=lambda block: -len(block.partition(".")[0]))
    return [(re.sub(r"_blocks?\b", "", block), f"{block}.") for block in ordered]


def _groups(merge: SearchedMerge, layers: int) -> Iterator[LayerGroup]:
    filters = [(text, text) for text in merge.layer_groups or ()] + _blocks(merge)
    by_name: list[tuple[str, str | None]] = [*filters, ("other", None)] if filters else []
    size = merge.layer_group_size
    if size is None and (by_name or merge.interpolate is not None):
        yield from (LayerGroup(name, filter=text) for name, text in by_name) if by_name else [_ALL]
        return
    for number, start in enumerate(range(0, layers, size or layers)):
        span = start, min(start + (size or layers), layers)
        if not by_name:
            yield LayerGroup(f"g{number}", span)
        for name, text in by_name:
            yield LayerGroup(f"g{number}.{name}", span, text)
