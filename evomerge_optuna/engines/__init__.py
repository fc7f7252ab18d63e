"""Engines: models that can be asked, a module for each way to run them.

A new engine is a module here with the two parts of an `EngineKind` (`engines/base.py`), and one row
in `ENGINES`. Engines know nothing of tasks.
"""

from collections.abc import Callable
from pathlib import Path

from evomerge_optuna.engines.base import CandidateBuilder, Engine, EngineKind
from evomerge_optuna.spec import EvaluationSpec

__all__ = ["ENGINES", "candidate_builder", "load_engine"]


def _transformers() -> EngineKind:
    from evomerge_optuna.engines.candidates import Builder  # imports torch
    from evomerge_optuna.engines.transformers import load_engine

    return EngineKind(Builder, load_engine)


ENGINES: dict[str, Callable[[], EngineKind]] = {"transformers": _transformers}


def candidate_builder(
    spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None
) -> CandidateBuilder:
    """What builds a study's candidates in its engine; see `EngineKind`."""
    return ENGINES[_name(spec)]().candidate_builder(spec, say)


def load_engine(folder: Path, spec: EvaluationSpec) -> Engine:
    """A checkpoint in the engine of a spec; see `EngineKind`."""
    return ENGINES[_name(spec)]().load_engine(folder, spec)


def _name(spec: EvaluationSpec) -> str:
    return "transformers"  # a spec cannot name another yet
