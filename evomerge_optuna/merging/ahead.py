"""What is needed one after the other, each made ready while the one before it is used."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_PAGE = 4096  # bytes


@contextmanager
def ahead(jobs: Iterable[Callable[[], _Item]]) -> Iterator[Iterator[_Item]]:
    """What the jobs give, in their order: a thread does the next while the last is used.

    No more than two items are there at a time. The end of the block waits for the job under way.

    Example:
        >>> with ahead([lambda: 1, lambda: 2]) as items:
        ...     print(next(items), next(items))
        1 2
    """
    left = iter(jobs)
    with ThreadPoolExecutor(1) as thread:
        under_way = [thread.submit(job) for job in islice(left, 1)]

        def items() -> Iterator[_Item]:
            while under_way:
                item = under_way.pop().result()  # and nobody else holds it
                under_way.extend(thread.submit(job) for job in islice(left, 1))
                yield item

        yield items()


def read_through(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, in memory: where its file is mapped, what is not there yet is read now."""
    if tensor.is_cpu and tensor.is_contiguous() and not tensor.is_pinned():
        tensor.reshape(-1)[:: _PAGE // tensor.element_size()].sum()
    return tensor
