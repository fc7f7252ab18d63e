"""The methods that merge adapters are those of peft, and LoraHub's."""

from typing import get_args, get_type_hints

from peft.tuners.lora.model import LoraModel

from evomerge_optuna.methods import ADAPTER_METHODS


def test_every_combination_of_peft_has_its_row() -> None:
    declared = get_type_hints(LoraModel.add_weighted_adapter)["combination_type"]
    assert {*get_args(declared), "lorahub"} == ADAPTER_METHODS.keys()


def test_what_is_pruned_has_a_density_and_what_votes_an_option() -> None:
    for row in ADAPTER_METHODS.values():
        assert ("density" in row.searched) == (row.prunes is not None)
        assert ("count_signs" in row.fixed) == row.elects
        assert row.whole <= (row.rank == "cut")
