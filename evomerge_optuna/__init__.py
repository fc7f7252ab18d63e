"""evomerge-optuna: search for the recipe of a merged language model with Optuna."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge_optuna.api import create_study, export, run_study

__version__ = "0.2.0"
__all__ = ["__version__", "create_study", "export", "run_study"]


def __getattr__(name: str) -> Any:
    """The Python interface, imported when it is first used: Optuna alone takes half a second."""
    if name in __all__:
        from evomerge_optuna import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
