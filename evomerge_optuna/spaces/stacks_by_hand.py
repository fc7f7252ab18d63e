"""The stacks that people try by hand, with which a search in data-flow space begins.

First another model alone, two models one after the other, and one half of each; then neighbours of
the first model's path: a block of layers more, fewer, or the other model's. In models of many
layers a block is a sixth of them: what one layer does is less than noise. See benchmarks/README.md
for what they are worth.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_BLOCKS = 6


@dataclass(frozen=True)
class Slot:
    """A place in the path that its layer may fill: layer `layer` of the model `alias`."""

    alias: str
    layer: int


Path = list[Slot]


def stacks_by_hand(depths: Mapping[str, int], seed: int) -> Iterator[tuple[str, Path]]:
    """Names and paths, those first that differ most from the first model.

    Args:
        depths: layers of each model, by alias, in order.
        seed: decides which blocks come first.
    """
    first, *others = depths
    for other in others:
        yield from _joined(first, other, depths)
    yield from _neighbours(depths, seed)


def _joined(first: str, other: str, depths: Mapping[str, int]) -> Iterator[tuple[str, Path]]:
    """Whole models and halves of them."""
    own, its = ([Slot(alias, n) for n in range(depths[alias])] for alias in (first, other))
    half, its_half = len(own) // 2, len(its) // 2
    yield f"all of {other}", its
    yield f"{first}, then {other}", own + its
    yield f"half of {first}, half of {other}", own[:half] + its[its_half:]
    yield f"half of {other}, half of {first}", its[:its_half] + own[half:]


def _neighbours(depths: Mapping[str, int], seed: int) -> Iterator[tuple[str, Path]]:
    """Neighbours of the first model's path, each kind in turn."""
    first, *others = depths
    own = [Slot(first, layer) for layer in range(depths[first])]
    size = max(1, depths[first] // _BLOCKS)
    draw = random.Random(seed)
    kinds: list[list[tuple[str, Path]]] = [[] for _ in range(2 + 3 * len(others))]
    for start in range(0, len(own), size):
        before, block, after = own[:start], own[start : start + size], own[start + size :]
        found = [
            ("without", block, before + after),
            ("twice", block, own[: start + size] + own[start:]),
        ]
        for other in others:
            its = [Slot(other, slot.layer) for slot in block if slot.layer < depths[other]]
            found += [
                ("at the end", its, own + its),
                ("added", its, before + block + its + after),
                ("instead", its, before + its + after),
            ]
        for kind, (how, layers, path) in zip(kinds, found, strict=True):
            if layers and path and path != own:
                kind.append((f"{_named(layers)} {how}", path))
    for kind in kinds:
        draw.shuffle(kind)
    for turn in range(max(map(len, kinds))):
        yield from (kind[turn] for kind in kinds if turn < len(kind))


def _named(layers: Path) -> str:
    """As `ja 3`, or `ja 3-5`."""
    low, high = layers[0].layer, layers[-1].layer
    return f"{layers[0].alias} {low}" + (f"-{high}" if high > low else "")
