"""mergekit's registry of merge methods; a method of your own is registered here."""

from mergekit.merge_methods.registry import get, register

__all__ = ["get", "register"]
