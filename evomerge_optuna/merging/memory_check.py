"""What a study needs beside what its machine has: told in one line, or refused with the cure."""

import math
from collections.abc import Iterator, Mapping

from evomerge_optuna.errors import SpecError
from evomerge_optuna.machine import Machine
from evomerge_optuna.merging.memory import SHARE
from evomerge_optuna.merging.memory_plan import Headers, MemoryPlan, ModelFacts, plan_memory
from evomerge_optuna.spec import AdapterStudySpec, MergeSearchSpec, StagedStudySpec, StudySpec

_NOTHING_KNOWN = ModelFacts()


def check_memory(
    spec: StudySpec,
    headers: Mapping[str, Headers],
    machine: Machine,
    facts: ModelFacts = _NOTHING_KNOWN,
) -> str:
    """What a study needs, and how much of it this machine can keep, in one line.

    Raises:
        SpecError: it cannot fit; with the change of the spec that makes it fit, if there is one.
    """
    limit = spec.evaluation.memory_limit
    if limit is not None and limit > machine.memory:
        raise SpecError(
            f"evaluation.memory_limit: {_gb(limit)} is more than the {_gb(machine.memory)} that "
            "this machine has; leave it out for 70% of what is free"
        )
    plan = plan_memory(spec, headers, machine.on_gpu, facts)
    most = int(SHARE * machine.free) if limit is None else int(limit)
    stays = plan.stacked <= most - (facts.engine or 0)
    needed = _needed(plan, stays)
    if needed > machine.memory:
        cure = _smaller_engine(plan, needed, machine, facts)
        raise SpecError(
            f"{_gb(needed)} of memory are needed to build a candidate, and "
            f"{'the GPU' if machine.on_gpu else 'this machine'} has {_gb(machine.memory)}; "
            f"{cure or _cure(spec, headers, machine, facts)}"
        )
    line = f"memory: {_gb(needed)} are needed to build a candidate"
    if facts.cache:
        line += f", and up to {_gb(facts.cache)} for the keys and values of a batch"
    if plan.shared:
        line += _shared_in_words(plan, min(max(0, most - needed), plan.shared), machine)
    if plan.stacked and not stays:
        line += _stacked_in_words(plan, machine)
    if plan.scratch:
        line += f"; {_gb(plan.scratch)} of disk in the home folder"
    return f"{line}; an export takes up to {_gb(plan.export)}"


def _needed(plan: MemoryPlan, stays: bool) -> int:
    """Bytes without which no candidate can be built.

    Args:
        stays: the models of stacks are kept on the device.
    """
    if plan.mapped:
        return plan.required
    return plan.required + (plan.stacked if stays else plan.copied)


def _shared_in_words(plan: MemoryPlan, kept: int, machine: Machine) -> str:
    if kept == plan.shared:
        return f"; the {_gb(plan.shared)} that all candidates share are kept"
    if not machine.host:
        some = f"{_gb(kept)} can be kept here, the rest" if kept else "nothing can be kept here: it"
        return (
            f"; of {_gb(plan.shared)} that all candidates share {some} is read or computed at "
            "every trial"
        )
    on_gpu = plan.inputs * kept // plan.shared
    in_host = min(plan.inputs - on_gpu, int(SHARE * machine.host))
    on_disk = plan.inputs - on_gpu - in_host
    places = {
        "are kept on the GPU": on_gpu,
        "are streamed to it from this machine's memory at every trial": in_host,
        "are read from disk": on_disk,
    }
    words = ", ".join(f"{_gb(size)} {where}" for where, size in places.items() if size)
    return f"; of the {_gb(plan.inputs)} of models {words}"


def _stacked_in_words(plan: MemoryPlan, machine: Machine) -> str:
    models = f"; the {_gb(plan.stacked)} of models whose layers are stacked"
    if plan.mapped:
        return f"{models} are read from disk where memory is short"
    there = "on disk" if plan.stacked > SHARE * machine.host else "in this machine's memory"
    return f"{models} stay {there}, from where a stack's layers are copied"


def _smaller_engine(
    plan: MemoryPlan, needed: int, machine: Machine, facts: ModelFacts
) -> str | None:
    """What makes vLLM take less of the device; None where its part of a candidate would not fit."""
    if facts.engine is None:
        return None
    share = math.floor(100 * (machine.memory - needed + facts.engine) / machine.memory) / 100
    if share * machine.memory <= plan.export / facts.devices:
        return None
    return f"write evaluation.engine_args: {{gpu_memory_utilization: {share}}}"


def _cure(
    spec: StudySpec, headers: Mapping[str, Headers], machine: Machine, facts: ModelFacts
) -> str:
    for words, other in _alternatives(spec):
        plan = plan_memory(other, headers, machine.on_gpu, facts)
        required = _needed(plan, plan.stacked <= int(SHARE * machine.free))
        if required <= machine.memory:
            return f"write {words}, which needs {_gb(required)}"
    return "take a machine with more of it, or smaller models"


def _alternatives(spec: StudySpec) -> Iterator[tuple[str, StudySpec]]:
    """Specs that need less, by what is to be written."""
    if isinstance(spec, AdapterStudySpec):
        if spec.evaluation.dtype is None:
            smaller = spec.evaluation.model_copy(update={"dtype": "bfloat16"})
            yield "evaluation.dtype: bfloat16", spec.model_copy(update={"evaluation": smaller})
        return
    written = spec.evaluation.model_copy(update={"merger": "checkpoint"})
    checkpoint = {"evaluation": written} if spec.stacking is None else {}
    if checkpoint:
        yield "evaluation.merger: checkpoint", spec.model_copy(update=checkpoint)
    part = "merge" if isinstance(spec, MergeSearchSpec) else "stack"
    if spec.dtype in ("bfloat16", "float16") or isinstance(spec, StagedStudySpec):
        return
    half = {part: getattr(spec, part).model_copy(update={"dtype": "bfloat16"})}
    yield f"{part}.dtype: bfloat16", spec.model_copy(update=half)
    if checkpoint:
        both = spec.model_copy(update=half | checkpoint)
        yield f"{part}.dtype: bfloat16 and evaluation.merger: checkpoint", both


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"
