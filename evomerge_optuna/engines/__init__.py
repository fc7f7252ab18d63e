"""Engines: models that can be asked, a module for each way to run them.

A new engine is a module here with the parts of an `EngineKind` (`engines/base.py`), and one row in
`ENGINES`. Engines know nothing of tasks.
"""

from collections.abc import Callable
from pathlib import Path

from evomerge_optuna.engines.base import CandidateBuilder, Engine, EngineKind, EngineMemory
from evomerge_optuna.spec import EvaluationSpec

__all__ = ["ENGINES", "candidate_builder", "check_engine", "engine_memory", "load_engine"]


def _transformers() -> EngineKind:
    from evomerge_optuna.engines.candidates import Builder  # imports torch
    from evomerge_optuna.engines.transformers import load_engine

    return EngineKind(Builder, load_engine)


def _vllm() -> EngineKind:
    from evomerge_optuna.engines.installed_vllm import check_vllm, memory_of_vllm
    from evomerge_optuna.engines.vllm import Builder, load_engine  # imports torch

    return EngineKind(Builder, load_engine, check_vllm, memory_of_vllm)


def _diffusers() -> EngineKind:
    from evomerge_optuna.engines.diffusers import Builder, check_diffusers, load_engine

    return EngineKind(Builder, load_engine, check_diffusers)


ENGINES: dict[str, Callable[[], EngineKind]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "diffusers": _diffusers,
}


def check_engine(spec: EvaluationSpec) -> None:
    """Refuses what the spec's engine cannot do on this machine; see `EngineKind`."""
    if spec.engine != "transformers":  # which is always there, and takes seconds to import
        ENGINES[spec.engine]().check(spec)


def engine_memory(spec: EvaluationSpec, batch: int) -> EngineMemory:
    """What the spec's engine takes, where a batch's keys and values take so many bytes."""
    if spec.engine == "transformers":  # see above
        return EngineMemory(cache=batch)
    return ENGINES[spec.engine]().memory(spec, batch)


def candidate_builder(
    spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None
) -> CandidateBuilder:
    """What builds a study's candidates in its engine; see `EngineKind`."""
    return ENGINES[spec.engine]().candidate_builder(spec, say)


def load_engine(folder: Path, spec: EvaluationSpec) -> Engine:
    """A checkpoint in the engine of a spec; see `EngineKind`."""
    return ENGINES[spec.engine]().load_engine(folder, spec)
