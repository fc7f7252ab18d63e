"""evomerge-optuna: search for the recipe of a merged language model with Optuna."""

__version__ = "0.1.0"
