"""The memory and disk that a study needs, by its models' headers alone; no weight is read."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from evomerge_optuna.merging.kernel import TORCH, Layout, ignores_base
from evomerge_optuna.merging.kernels import GeneralKernel, kernel_for
from evomerge_optuna.models.headers import STORED, Header
from evomerge_optuna.spec import (
    AdapterStudySpec,
    MergeSearchSpec,
    StackSpec,
    StagedStudySpec,
    StudySpec,
)

Headers = Mapping[str, Header]  # of one model, by the tensor's name

_ITEMSIZE = {"float32": 4, "bfloat16": 2, "float16": 2}
_SHARD = 5 * 10**9  # bytes that mergekit gathers before it writes a file
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


@dataclass(frozen=True)
class ModelFacts:
    """What a plan needs to know of a study's models beside their headers.

    Args:
        loaded_in: the dtype that a model's configuration names, by the model's key in the spec; the
            model is loaded in that, however it is stored.
        tokens: in the first model's vocabulary, and in the union of all where a merge has that.
        kept: bytes of the tensors that are not merged, which every candidate has.
        engine: bytes of the device that the engine takes for candidates and for running them; None:
            those of the candidate itself.
        adapters: bytes of the adapters that are merged, and of the largest merge of them.
        cache: bytes that keys and values of a full batch take beside that.
        devices: over so many the engine spreads a candidate, in equal parts.
    """

    loaded_in: Mapping[str, str | None] = field(default_factory=dict)
    tokens: tuple[int, int] | None = None
    kept: int = 0
    engine: int | None = None
    adapters: tuple[int, int] = (0, 0)
    cache: int = 0
    devices: int = 1


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of memory (a GPU's, where the study runs on one) and of disk that a study takes.

    A batch and torch itself take more.

    Args:
        required: without these no candidate can be built: the merged model, or what the engine
            takes, and the work on the largest tensor.
        shared: the resident merger keeps these between trials as far as there is room, since all
            candidates share them: the models, and what their kernels keep.
        inputs: of `shared`, the models; they are streamed where they are not kept.
        stacked: the models whose layers stacks have. They are all kept, or all but what a stack
            has of them is not.
        copied: what the largest stack has of them, which is then copied for it.
        mapped: they take no memory but that of their files, and nothing is copied.
        scratch: of disk, for a candidate's checkpoint and for models with their adapters.
        export: of disk, for an exported checkpoint, at most.
    """

    required: int = 0
    shared: int = 0
    inputs: int = 0
    stacked: int = 0
    copied: int = 0
    mapped: bool = False
    scratch: int = 0
    export: int = 0


def plan_memory(
    spec: StudySpec, headers: Mapping[str, Headers], on_gpu: bool, facts: ModelFacts = ModelFacts()
) -> MemoryPlan:
    """What a study with these models needs.

    Args:
        headers: of every model, by its key in the spec.
    """
    if isinstance(spec, AdapterStudySpec):
        return _with_adapters(spec, headers["base_model"], on_gpu, facts)
    adapted = {model: key for key, model in spec.model_ids().items() if "+" in model}
    adapters = sum(_size(headers[key]) for key in adapted.values())
    plan = MemoryPlan(scratch=adapters)
    # What is held, by the dtype in which it is loaded.
    held: list[tuple[Headers, str | None]] = []
    if (merge := _merge_of(spec, headers, facts)) is not None:
        plan = _with_merge(plan, merge, spec, on_gpu, facts.engine)
        held = [(_as_merged(merge.merged, spec.dtype), spec.dtype or merge.loaded_in)]
    if spec.stacking is not None:
        keys = [f"models.{alias}" for alias in spec.models if _is_stacked(alias, spec)]
        loaded = [_as_loaded(headers[key], facts.loaded_in.get(key)) for key in keys]
        mapped = not on_gpu and all(
            _as_merged(model, spec.dtype) == headers[key]
            for key, model in zip(keys, loaded, strict=True)
        )
        plan = _with_stack(plan, [model for model, _ in held], loaded, spec.stacking, spec.dtype)
        plan = replace(plan, mapped=mapped)
        held += [(_as_merged(model, spec.dtype), None) for model in loaded]
    if facts.engine is not None:  # which holds candidates itself, and takes them as they come
        plan, held = replace(plan, required=max(plan.required, facts.engine), copied=0), []
    copied = sum(_size_of_copy(model, spec.evaluation.dtype or dtype) for model, dtype in held)
    return replace(
        plan,
        required=plan.required + copied + facts.kept,
        export=plan.export + facts.kept,
    )


def _with_adapters(
    spec: AdapterStudySpec, base: Headers, on_gpu: bool, facts: ModelFacts
) -> MemoryPlan:
    """The base model is held once; adapters lie in the machine's memory, one merge beside it."""
    read, merged = facts.adapters
    model = _size(base, spec.evaluation.dtype or facts.loaded_in.get("base_model"))
    required = model + merged + (0 if on_gpu else read)
    if facts.engine is not None:
        required = facts.engine + (0 if on_gpu else read)
    return MemoryPlan(required=required, export=_size(base) + merged)


def _size_of_copy(model: Headers, run_in: str | None) -> int:
    """Bytes of a model in the dtype in which it is to run, if that is not the one it has."""
    if run_in not in STORED or all(h.dtype == STORED[run_in] for h in model.values()):
        return 0
    return _size(model, run_in)


@dataclass(frozen=True)
class _Merge:
    """A study's merge.

    Args:
        inputs: tensors of each model, as they are stored.
        merged: tensors of what is made of them, before the spec's dtype.
        loaded_in: the dtype that its configuration names where the spec names none.
        methods: one of them merges, and any may.
        has_base: one of the inputs is the base model's.
        drops: a density below 1 drops a part of the task vectors.
    """

    methods: Sequence[str]
    inputs: Sequence[Headers]
    merged: Headers
    loaded_in: str | None
    has_base: bool
    drops: bool

    def layouts(self, dtype: str | None, on_gpu: bool) -> Iterator[list[Layout]]:
        """Of every merged tensor the inputs of each method, which have the merged tensor's shape.

        Args:
            dtype: in which the spec has them merged; None: as they are stored.
        """
        for name, header in self.merged.items():
            stored = [model[name] for model in self.inputs if name in model]
            yield [
                Layout(
                    method=method,
                    dtypes=tuple(TORCH[STORED[dtype] if dtype else each.dtype] for each in stored),
                    count=header.count,
                    is_complete=len(stored) == len(self.inputs),
                    has_base=self.has_base and not ignores_base(method),
                    on_gpu=on_gpu,
                )
                for method in self.methods
            ]


def _merge_of(spec: StudySpec, headers: Mapping[str, Headers], facts: ModelFacts) -> _Merge | None:
    if isinstance(spec, MergeSearchSpec):
        keys = list(_first_keys(spec.model_ids()))
        methods = [method.name for method in spec.merge.methods]
        has_base, drops = spec.base_model is not None, spec.merge.drops
    elif isinstance(spec, StagedStudySpec) and spec.merged is not None:
        keys = [key for key in headers if key.startswith("from_study")]
        configuration = spec.merged.configuration
        methods, has_base = [configuration["merge_method"]], "base_model" in configuration
        drops = True
    else:
        return None
    inputs = [headers[key] for key in keys]
    return _Merge(
        methods=methods,
        inputs=inputs,
        merged=_with_rows(_promoted(inputs), facts.tokens),
        loaded_in=facts.loaded_in.get(keys[0]),
        has_base=has_base,
        drops=drops,
    )


def _first_keys(models: Mapping[str, str]) -> Iterator[str]:
    """The keys of the models, one for each, since one that is named twice is read once."""
    named = set()
    for key, model in models.items():
        if model not in named:
            yield key
        named.add(model)


def _with_rows(model: Headers, tokens: tuple[int, int] | None) -> Headers:
    """The tensors with embeddings, and a head, of the union's tokens; see `ModelFacts`."""
    if tokens is None:
        return model
    before, after = tokens
    return {
        name: replace(header, shape=(after, *header.shape[1:]))
        if header.shape[:1] == (before,) and not _LAYER.search(name)
        else header
        for name, header in model.items()
    }


def _promoted(inputs: Sequence[Headers]) -> Headers:
    """Every tensor that an input has, in a dtype that holds all inputs' values."""
    found: dict[str, Header] = {}
    for name in dict.fromkeys(name for model in inputs for name in model):
        every = [model[name] for model in inputs if name in model]
        types = {header.dtype for header in every}
        widest = max(every, key=lambda header: header.itemsize).dtype
        half = types >= {"F16", "BF16"} and widest in types - {"F32", "F64"}
        found[name] = Header(every[0].shape, "F32" if half else widest)
    return found


def _as_merged(model: Headers, dtype: str | None) -> Headers:
    """The tensors in the dtype of the spec, if it names one."""
    if dtype is None:
        return model
    return {name: Header(header.shape, STORED[dtype]) for name, header in model.items()}


def _as_loaded(model: Headers, dtype: str | None) -> Headers:
    return _as_merged(model, dtype if dtype in STORED else None)


def _is_stacked(alias: str, spec: StudySpec) -> bool:
    chosen = getattr(spec.stacking, "models", None)  # only a stack of a merge chooses
    return chosen is None or alias in chosen


def _with_merge(
    plan: MemoryPlan, merge: _Merge, spec: StudySpec, on_gpu: bool, engine: int | None
) -> MemoryPlan:
    merged = _size(_as_merged(merge.merged, spec.dtype))
    writes = spec.evaluation.merger == "checkpoint"
    shared = work = inputs = 0
    for layouts in merge.layouts(spec.dtype, on_gpu):
        found = [
            (GeneralKernel if writes else kernel_for(each)).memory(each, merge.drops)
            for each in layouts
        ]
        size = layouts[0].input_bytes
        inputs += size
        shared += size + max(memory.kept for memory in found)
        # On a GPU the next tensor's inputs are there, too, where they are streamed.
        work = max(work, *(memory.work + (size if on_gpu else 0) for memory in found))
    holds = merged if engine is None else engine
    if writes:
        writing = min(merged, _SHARD) + work  # on the CPU; the model is loaded afterwards
        required = holds if on_gpu else max(holds, writing)
        return replace(plan, required=required, scratch=plan.scratch + merged, export=merged)
    return replace(plan, required=holds + work, shared=shared, inputs=inputs, export=merged)


def _with_stack(
    plan: MemoryPlan,
    merged: Sequence[Headers],
    loaded: Sequence[Headers],
    stack: StackSpec,
    dtype: str | None,
) -> MemoryPlan:
    """With the models of a stack, of which `loaded` are loaded as they are."""
    sizes = [_size(model, dtype) for model in loaded]
    models = [*merged, *loaded]
    layers = [
        (_size(_layer_tensors(model), dtype), 1 + max(map(_layer_of, model))) for model in models
    ]
    most = stack.max_layers or stack.repeats * sum(number for _, number in layers)
    outside = _size(models[0], dtype) - layers[0][0]
    layer = max(size // number for size, number in layers)
    # A layer that a stack has twice is there once; embeddings and head may be of two models.
    own = 2 * outside + min(most, sum(number for _, number in layers)) * layer
    export = outside + most * layer
    return replace(plan, stacked=sum(sizes), copied=min(own, sum(sizes)), export=export)


def _size(model: Headers, dtype: str | None = None) -> int:
    """Bytes of a model's tensors, in this dtype or as they are stored."""
    itemsize = _ITEMSIZE.get(dtype or "")
    return sum(header.count * (itemsize or header.itemsize) for header in model.values())


def _layer_tensors(model: Headers) -> Headers:
    return {name: header for name, header in model.items() if _LAYER.search(name)}


def _layer_of(name: str) -> int:
    found = _LAYER.search(name)
    return int(found[1]) if found else 0
