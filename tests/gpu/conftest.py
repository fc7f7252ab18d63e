"""All tests here need an accelerator, and are skipped without one."""

from pathlib import Path

import pytest
import torch

from evomerge_optuna import devices


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)
            if not devices.accelerators():
                why = f"torch {torch.__version__} finds no accelerator here"
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def device() -> str:
    return devices.torch_device("auto")
