"""What a study needs of a machine, from its models' headers: told before any weight is loaded."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from evomerge_optuna.errors import SpecError
from evomerge_optuna.machine import Machine
from evomerge_optuna.models.headers import STORED, Header
from evomerge_optuna.spec import MergeSearchSpec, StackSpec, StagedStudySpec, StudySpec

Headers = Mapping[str, Header]  # of one model, by the tensor's name

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_MASKED = ("ties", "dare_linear", "dare_ties")
_SHARD = 5 * 10**9  # bytes that mergekit gathers before it writes a file
_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


@dataclass(frozen=True)
class Needs:
    """Bytes of memory (a GPU's, where the study runs on one) and of disk that a study takes.

    Of text parts; a vision tower, what a batch takes and torch itself come on top.

    Args:
        required: without which no candidate can be built: the merged model and the work on its
            largest tensor; of a stack all models.
        shared: that the resident merger keeps between trials as far as there is room, since all
            candidates share it: the models, ranks of task vectors, random numbers of masks.
        scratch: of disk, for a candidate's checkpoint and for models with their adapters.
        export: of disk, for an exported checkpoint, at most.
    """

    required: int
    shared: int
    scratch: int
    export: int


def needs_of(spec: StudySpec, headers: Mapping[str, Headers], on_gpu: bool) -> Needs:
    """What a study with these models needs.

    Args:
        headers: of every model, by its key in the spec.
    """
    adapted = {model: key for key, model in spec.model_ids().items() if "+" in model}
    adapters = sum(_size(headers[key]) for key in adapted.values())
    needs = Needs(0, 0, adapters, 0)
    merged: list[Headers] = []
    loaded: list[Headers] = []
    if (merge := _merge_of(spec, headers)) is not None:
        needs = _with_merge(needs, merge, spec, on_gpu)
        merged = [merge.inputs[0]]  # which has the merge's shapes
    if spec.stacking is not None:
        loaded = [headers[f"models.{alias}"] for alias in spec.models if _is_stacked(alias, spec)]
        needs = _with_stack(needs, merged, loaded, spec.stacking, spec.dtype)
    run_in = spec.evaluation.dtype
    if run_in is None:
        return needs
    copied = sum(
        _size(model, run_in)
        for model in [*merged, *loaded]
        if any((STORED.get(spec.dtype or "") or h.dtype) != STORED[run_in] for h in model.values())
    )
    return replace(needs, required=needs.required + copied)


def plan_memory(spec: StudySpec, headers: Mapping[str, Headers], machine: Machine) -> str:
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
    needs = needs_of(spec, headers, machine.on_gpu)
    if needs.required > machine.memory:
        raise SpecError(
            f"{_gb(needs.required)} of memory are needed to build a candidate, and "
            f"{'the GPU' if machine.on_gpu else 'this machine'} has {_gb(machine.memory)}; "
            f"{_cure(spec, headers, machine)}"
        )
    told = f"memory: {_gb(needs.required)} are needed to build a candidate"
    if needs.shared:
        most = machine.free * 7 // 10 if limit is None else int(limit)
        told += _told_of_shared(needs.shared, min(max(0, most - needs.required), needs.shared))
    if needs.scratch:
        told += f"; {_gb(needs.scratch)} of disk in the home folder"
    return f"{told}; an export takes up to {_gb(needs.export)}"


def _told_of_shared(shared: int, kept: int) -> str:
    if kept == shared:
        return f"; the {_gb(shared)} that all candidates share are kept"
    some = f"{_gb(kept)} can be kept here, the rest" if kept else "nothing can be kept here: it"
    return f"; of {_gb(shared)} that all candidates share {some} is read or computed at every trial"


def _cure(spec: StudySpec, headers: Mapping[str, Headers], machine: Machine) -> str:
    for words, other in _alternatives(spec):
        required = needs_of(other, headers, machine.on_gpu).required
        if required <= machine.memory:
            return f"write {words}, which needs {_gb(required)}"
    return "take a machine with more of it, or smaller models"


def _alternatives(spec: StudySpec) -> Iterator[tuple[str, StudySpec]]:
    """Specs that need less, by what is to be written."""
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


@dataclass(frozen=True)
class _Merge:
    """A study's merge: the first of its inputs is the base model, if it has one."""

    method: str
    inputs: Sequence[Headers]
    sources: int


def _merge_of(spec: StudySpec, headers: Mapping[str, Headers]) -> _Merge | None:
    if isinstance(spec, MergeSearchSpec):
        return _Merge(spec.merge.method, list(headers.values()), len(spec.models))
    if isinstance(spec, StagedStudySpec) and spec.merged is not None:
        inputs = [model for key, model in headers.items() if key.startswith("from_study")]
        configuration = spec.merged.configuration
        sources = len(inputs) - (configuration.get("base_model") is not None)
        return _Merge(configuration["merge_method"], inputs, sources)
    return None


def _is_stacked(alias: str, spec: StudySpec) -> bool:
    chosen = getattr(spec.stacking, "models", None)  # only a stack of a merge chooses
    return chosen is None or alias in chosen


def _with_merge(needs: Needs, merge: _Merge, spec: StudySpec, on_gpu: bool) -> Needs:
    first = merge.inputs[0].values()
    merged = _size(merge.inputs[0], spec.dtype)
    count = sum(header.count for header in first)
    masked = merge.method in _MASKED
    itemsize = merged // count
    # For each element of the largest tensor: inputs and task vectors, masks, what is sorted.
    work = itemsize * (len(merge.inputs) + merge.sources)
    work += masked * merge.sources * (4 + itemsize) + (merge.method == "ties") * (16 + itemsize)
    work *= max(header.count for header in first)
    if spec.evaluation.merger == "checkpoint":
        writing = min(merged, _SHARD) + work  # on the CPU; the model is loaded afterwards
        required = merged if on_gpu else max(merged, writing)
        return replace(needs, required=required, scratch=needs.scratch + merged, export=merged)
    # Ranks, or random numbers, which a GPU does not keep; see `kernels`.
    numbers = 4 * merge.sources * count if masked else 0
    if on_gpu and merge.method != "ties":
        numbers = 0
    shared = len(merge.inputs) * merged + numbers
    return replace(needs, required=merged + work, shared=shared, export=merged)


def _with_stack(
    needs: Needs,
    merged: Sequence[Headers],
    loaded: Sequence[Headers],
    stack: StackSpec,
    dtype: str | None,
) -> Needs:
    """With the models of a stack, of which `loaded` are loaded as they are."""
    sizes = [_size(model, dtype) for model in loaded]
    # A model is loaded in its own dtype, then changed.
    changing = max((_size(m) for m in loaded if _size(m) != _size(m, dtype)), default=0)
    models = [*merged, *loaded]
    layers = [
        (_size(_layer_tensors(model), dtype), 1 + max(map(_layer_of, model))) for model in models
    ]
    most = stack.max_layers or stack.repeats * sum(number for _, number in layers)
    outside = _size(models[0], dtype) - layers[0][0]
    export = outside + most * max(size // number for size, number in layers)
    return replace(needs, required=needs.required + sum(sizes) + changing, export=export)


def _size(model: Headers, dtype: str | None = None) -> int:
    """Bytes of a model's tensors, in this dtype or as they are stored."""
    itemsize = _ITEMSIZE.get(dtype or "")
    return sum(header.count * (itemsize or header.itemsize) for header in model.values())


def _layer_tensors(model: Headers) -> Headers:
    return {name: header for name, header in model.items() if _LAYER.search(name)}


def _layer_of(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else 0


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"
