"""Do the models of a study fit together? Their configurations and tokenizers are compared."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.architectures import stack_names
from evomerge_optuna.models.differences import check_same_in_a_stack
from evomerge_optuna.models.headers import parameter_shapes
from evomerge_optuna.models.layout import layout_of
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.tokens import check_ids
from evomerge_optuna.spec import (
    AdapterStudySpec,
    MergeSearchSpec,
    SearchedMerge,
    StackSpec,
    StudySpec,
)
from evomerge_optuna.spec.merge import OF_PIPELINES

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# Shown by name before any tensor is compared, since they say more than a shape does.
_COMPARED = (
    ("num_hidden_layers", "layers"),
    ("hidden_size", "hidden size"),
    ("intermediate_size", "MLP size"),
    ("num_attention_heads", "attention heads"),
    ("num_key_value_heads", "key/value heads"),
)
_MATCHED_BY_MERGEKIT = (
    "set merge.tokenizer_source to base or union and mergekit matches them token by token"
)
_MERGED_EACH = (
    "leave merge.space out, and each adapter is merged into a model of its own first, whose tokens "
    "merge.tokenizer_source matches"
)
_OTHERS_UNUSED = "set stack.head to first, and only the first model's embeddings and head are used"


def check_architecture(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if a.model_type != b.model_type:
        raise SpecError(
            f"{key}: its architecture is {b.model_type}, that of {first} is {a.model_type}; "
            "only models of one architecture can be merged"
        )
    for attribute, words in _COMPARED:
        if attribute == "num_hidden_layers" and spec.any_depth:
            continue  # any depth
        have, want = getattr(b, attribute, None), getattr(a, attribute, None)
        if have != want:
            raise SpecError(
                f"{key}: {words} {have}, but {first} has {want}{_where(a, b, first, key)}; "
                "only models of one shape can be merged"
            )


def check_vocabulary(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if spec.any_vocabulary:
        return
    if a.vocab_size != b.vocab_size:
        raise SpecError(
            f"{key}: vocabulary of {b.vocab_size} tokens, but {first} has {a.vocab_size}; "
            + _match(spec)
        )


def check_tokenizer(
    spec: StudySpec,
    tokenizer: "PreTrainedTokenizerBase",
    config: "PretrainedConfig",
    first: str,
    model: OpenedModel,
    key: str,
) -> "PreTrainedTokenizerBase | None":
    """Checks a model's tokenizer against the first model's and returns it; None if it has none."""
    try:
        other = model.tokenizer
    except SpecError:
        return None  # a source without a tokenizer takes that of the first model
    check_ids(other, config.vocab_size, model.name, key)
    if spec.any_vocabulary:
        return other
    want, have = tokenizer.get_vocab(), other.get_vocab()
    if want != have:
        token = next(t for t in sorted(want.keys() | have.keys()) if want.get(t) != have.get(t))
        raise SpecError(
            f"{key}: its tokenizer is not that of {first} (first difference: {token!r}); "
            + _match(spec)
        )
    return other


def check_dtype(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if spec.dtype is None and a.dtype != b.dtype:
        where = "merge" if isinstance(spec, MergeSearchSpec) else "stack"
        raise SpecError(
            f"{key}: dtype {dtype_name(b)}, but {first} has {dtype_name(a)}; "
            f"set {where}.dtype to the one to merge in"
        )


def check_shapes(a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str) -> None:
    want, have = parameter_shapes(a, first), parameter_shapes(b, key)
    shared = layout_of(a, tied=True).tied  # a head of its own is merged with embeddings that serve
    for name in (name for name in {**want, **have} if name not in shared):
        x, y = want.get(name), have.get(name)
        if None in (x, y) and a.num_hidden_layers != b.num_hidden_layers:
            continue  # of a layer that one of them has not, which only a stack allows
        if not _alike(x, y, a, b):
            raise SpecError(
                f"{key}: tensor {name} has shape {y}, but {first} has {x}; "
                "only models of one shape can be merged"
            )


def check_not_of_pipelines(spec: MergeSearchSpec) -> None:
    for name in OF_PIPELINES:
        if getattr(spec.merge, name):
            raise SpecError(
                f"merge.{name}: is for pipelines of diffusers, and these are language models; "
                "leave it out"
            )


def check_layer_groups(merge: SearchedMerge, layers: int, names: Collection[str]) -> None:
    """Refuses groups that models of so many layers, with tensors of these names, do not have."""
    size = merge.layer_group_size
    if size is not None and size > layers:
        raise SpecError(
            f"merge.layer_group_size: {size} is more than the models' {layers} layers; "
            "leave it out for one group"
        )
    points = merge.interpolate
    if points is not None and points > layers:
        raise SpecError(
            f"merge.interpolate: {points} points are more than the models' {layers} "
            f"{'layers' if layers > 1 else 'layer'}; leave it out, or write fewer"
        )
    taken: set[str] = set()
    for text in merge.layer_groups or ():
        matching = {name for name in names if text in name}
        if not matching:
            raise SpecError(
                f"merge.layer_groups: no tensor's name contains '{text}'; names look like "
                f"{_example_name(names)}"
            )
        if matching <= taken:
            raise SpecError(
                f"merge.layer_groups: every tensor that '{text}' matches is taken by an earlier "
                "filter; write it before that one, or leave it out"
            )
        taken |= matching


def check_stack(stack: StackSpec, configs: dict[str, "PretrainedConfig"]) -> None:
    first, one = next(iter(configs.items()))
    stack_names(one.model_type, first)
    check_same_in_a_stack(configs)
    if 2 * stack.anchors > one.num_hidden_layers:
        raise SpecError(
            f"stack.anchors: {first} has {one.num_hidden_layers} layers, too few for "
            f"{stack.anchors} at each end"
        )


def _where(a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str) -> str:
    """The first tensor that one has not, or has in another shape, if there is one."""
    want, have = parameter_shapes(a, first), parameter_shapes(b, key)
    names = (n for n in {**want, **have} if not _alike(want.get(n), have.get(n), a, b))
    return next((f" (tensor {name})" for name in names), "")


def _alike(
    x: tuple[int, ...] | None,
    y: tuple[int, ...] | None,
    a: "PretrainedConfig",
    b: "PretrainedConfig",
) -> bool:
    """Has a tensor the same shape in both, but for rows where the vocabularies differ?"""
    same_but_rows = x is not None and y is not None and x[1:] == y[1:]
    return x == y or (same_but_rows and a.vocab_size != b.vocab_size)


def _match(spec: StudySpec) -> str:
    if isinstance(spec, AdapterStudySpec):
        return _MERGED_EACH
    return _MATCHED_BY_MERGEKIT if isinstance(spec, MergeSearchSpec) else _OTHERS_UNUSED


def _example_name(names: Collection[str]) -> str:
    return next((name for name in names if ".0." in name), next(iter(names)))


def dtype_name(config: "PretrainedConfig") -> str:
    return str(config.dtype).removeprefix("torch.")
