"""The packages that do the work, and their versions; none of them is imported for that."""

import importlib.metadata

ENGINES = (
    "evomerge-optuna",
    "optuna",
    "cmaes",
    "mergekit",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
)


def engine_versions() -> dict[str, str]:
    """The installed version of each, by name."""
    return {name: importlib.metadata.version(name) for name in ENGINES}
