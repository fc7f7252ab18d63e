"""Blocks divide a split evenly, the same way every time."""

import pytest

from evomerge_optuna.evaluation.blocks import Block


@pytest.mark.parametrize(("problems", "count"), [(200, 10), (23, 5), (7, 7)])
def test_blocks_are_all_problems_once(problems: int, count: int) -> None:
    blocks = [Block(n, count, 3).of(range(problems)) for n in range(count)]
    assert sorted(i for block in blocks for i in block) == list(range(problems))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    assert all(block == sorted(block) for block in blocks)


def test_blocks_are_shuffled_by_the_seed() -> None:
    block = Block(0, 5, seed=3).of(range(100))
    assert block == Block(0, 5, seed=3).of(range(100))
    assert block != Block(0, 5, seed=4).of(range(100))
    assert block != list(range(0, 100, 5))
    assert block != list(range(20))
