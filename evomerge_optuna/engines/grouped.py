"""Adapters in vLLM on the CPU: two products of matrices for each adapter that is in a batch.

vLLM's own way there copies A and B once for every token of the batch, in each module of each layer.
On the GPU it has kernels, which this does not replace.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform

_NAME = f"{__name__}.GroupedAdapters"


class GroupedAdapters(PunicaWrapperCPU):  # type: ignore[misc]
    """What adds to the outputs of linear modules what each row's adapter gives."""

    _groups: list[tuple[int, torch.Tensor | None]]

    def update_metadata(self, *given: Any, **named: Any) -> None:
        """Is told before each pass which rows have which adapter."""
        super().update_metadata(*given, **named)
        slots = self.token_lora_indices
        there = [slot for slot in torch.unique(slots).tolist() if slot >= 0]
        if len(there) == 1 and bool((slots >= 0).all()):
            self._groups = [(there[0], None)]
        else:
            self._groups = [(slot, (slots == slot).nonzero().squeeze(1)) for slot in there]

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Adds to y (tokens, outputs) what adapters make of x (tokens, inputs).

        Args:
            lora_a_stacked: A of each slice of the outputs, (adapters, 1, rank, inputs) each.
            lora_b_stacked: B, (adapters, 1, width of the slice, rank).
        """
        x, y = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for slot, rows in self._groups:
            given = x if rows is None else x[rows]
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                added = scale * (given @ a[slot, 0].T) @ b[slot, 0].T
                part = y[:, start : start + width]
                if rows is None:
                    part += added
                else:
                    part.index_add_(0, rows, added.to(part.dtype))
                start += width


def group_adapters_on_cpu() -> None:
    """Has engines of this process that start from now on do so, if they run on the CPU."""
    if current_platform.is_cpu():
        current_platform.get_punica_wrapper = lambda: _NAME
