"""Accelerators that a test tells torch of."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

GB = 10**9


def fake_accelerators(monkeypatch: pytest.MonkeyPatch, kind: str, number: int) -> list[Any]:
    """Gives torch so many accelerators of a kind, of 24 GB each; notes what is done to them."""
    done: list[Any] = []
    current = SimpleNamespace(index=0)

    def set_index(index: int) -> None:
        current.index = index

    module = SimpleNamespace(
        get_device_name=lambda index: f"Card {index}",
        get_rng_state=lambda device: torch.tensor([7]),
        set_rng_state=lambda state, device: done.append((device, state.tolist())),
    )
    for name, value in {
        "is_available": lambda: True,
        "device_count": lambda: number,
        "current_accelerator": lambda: SimpleNamespace(type=kind),
        "current_device_index": lambda: current.index,
        "set_device_index": set_index,
        "get_memory_info": lambda device: (20 * GB, 24 * GB),
        "empty_cache": lambda: done.append("emptied"),
    }.items():
        monkeypatch.setattr(torch.accelerator, name, value)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    return done
