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


def engine_versions(*more: str) -> dict[str, str]:
    """The installed version of each, and of further packages, by name."""
    return {name: _version(name) for name in (*ENGINES, *more)}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version(f"{name}-cpu")  # as vLLM's build without CUDA is called
