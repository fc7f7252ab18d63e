"""Merge methods: one row of `table` each says all that this package knows of a method."""

from evomerge_optuna.methods.adapters import ADAPTER_METHODS, AdapterMethod
from evomerge_optuna.methods.method import Method, Option, Parameter, Value
from evomerge_optuna.methods.table import BASELINES, METHODS

__all__ = [
    "ADAPTER_METHODS",
    "BASELINES",
    "METHODS",
    "AdapterMethod",
    "Method",
    "Option",
    "Parameter",
    "Value",
]
