"""The methods that merge adapters are those of peft, and LoraHub's."""

import inspect
from typing import get_args

from peft.tuners.lora.model import LoraModel

from evomerge_optuna.methods import ADAPTER_METHODS


def test_every_combination_of_peft_has_its_row() -> None:
    declared = inspect.signature(LoraModel.add_weighted_adapter).parameters["combination_type"]
    assert {*get_args(declared.annotation), "lorahub"} == ADAPTER_METHODS.keys()


def test_what_is_pruned_has_a_density_and_what_votes_an_option() -> None:
    for row in ADAPTER_METHODS.values():
        assert ("density" in row.searched) == (row.prunes is not None)
        assert ("count_signs" in row.fixed) == row.elects
        assert row.whole <= (row.rank == "cut")
