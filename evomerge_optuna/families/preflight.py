"""Can this spec's models be merged, and run here? Asked before any weight is loaded."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.vision_language.checkpoint import missing_tokens
from evomerge_optuna.families.vision_language.text_part import (
    VISION_MODELS,
    is_vision_language,
    text_config,
)
from evomerge_optuna.models.architectures import stack_names
from evomerge_optuna.models.catalog import (
    adapted_config,
    check_exists,
    is_on_hub,
    load_config,
    load_processor,
    load_tokenizer,
    source_of,
)
from evomerge_optuna.models.differences import (
    check_same_in_a_stack,
    check_same_network,
    told_of_configuration,
    with_another_configuration,
)
from evomerge_optuna.models.files import check_files, check_unquantized
from evomerge_optuna.models.headers import parameter_shapes
from evomerge_optuna.models.layout import layout_of
from evomerge_optuna.models.loading import torch_device
from evomerge_optuna.models.tokens import check_ids
from evomerge_optuna.models.transformers_internals import causal_language_models
from evomerge_optuna.spec import MergeSearchSpec, StackSpec, StagedStudySpec, StudySpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

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
_OTHERS_UNUSED = "set stack.head to first, and only the first model's embeddings and head are used"


@dataclass(frozen=True)
class Architecture:
    """What the merge needs to know of the models, which all share it."""

    name: str
    layers: dict[str, int]  # by the model's key in the spec
    parameters: int  # of the first model
    remarks: tuple[str, ...]  # which configuration candidates have, where those of models differ
    others: tuple[str, ...]  # keys of the models that answer otherwise with that configuration
    dtypes: dict[str, str | None]  # that the configurations name, by the model's key
    tokens: tuple[int, int] | None  # of the first model, and of the union where a merge has that


def preflight(spec: StudySpec) -> Architecture:
    """Checks that every model exists and can be merged with the first one, and run here.

    Raises:
        SpecError: naming the model's key, what differs, and the cure.
    """
    torch_device(spec.evaluation.device)
    models = spec.model_ids()
    for key, model in models.items():
        check_exists(model, key)
    whole = {key: load_config(model, key) for key, model in models.items()}
    configs = {key: text_config(config, key) for key, config in whole.items()}
    for key, config in configs.items():
        _check_causal(config, key)
        check_unquantized(whole[key].to_dict(), f"{key}: {models[key]}")
        if "+" in models[key] and is_vision_language(whole[key]):
            raise SpecError(
                f"{key}: {models[key]}: an adapter is merged into a text model only; merge it into "
                "this vision-language model yourself, and name the checkpoint"
            )
        configs[key] = adapted_config(models[key], config, key)
    first, *others = configs
    tokenizer = _merged_tokenizer(models[first], first)
    check_ids(tokenizer, configs[first].vocab_size, models[first], first)
    tokens = set(tokenizer.get_vocab())
    for key in others:
        _check_architecture(spec, configs[first], configs[key], first, key)
        _check_vocabulary(spec, configs[first], configs[key], first, key)
        other = _check_tokenizer(spec, tokenizer, configs[key], first, key)
        tokens |= other.get_vocab().keys() if other else set()
        _check_dtype(spec, configs[first], configs[key], first, key)
        _check_shapes(configs[first], configs[key], first, key)
    check_same_network(configs)
    for key, model in models.items():
        if not is_on_hub(model.partition("+")[0]):  # else once it is downloaded
            check_files(Path(source_of(model)[0]), f"{key} ({model})")
    if spec.vision_model is not None:
        _check_vision(spec, tokenizer, first)
    config = configs[first]
    shapes = parameter_shapes(config, first)
    if isinstance(spec, MergeSearchSpec):
        _check_layer_groups(spec, config.num_hidden_layers, shapes)
    if spec.stacking is not None:
        _check_stack(spec.stacking, configs)
    count = sum(map(prod, shapes.values()))
    layers = {key: config.num_hidden_layers for key, config in configs.items()}
    return Architecture(
        name=config.architectures[0],
        layers=layers,
        parameters=count,
        remarks=told_of_configuration(spec, configs),
        others=with_another_configuration(configs),
        dtypes={k: None if c.dtype is None else _dtype_name(c) for k, c in configs.items()},
        tokens=(config.vocab_size, len(tokens)) if _tokenizer_source(spec) == "union" else None,
    )


def with_vision(spec: StudySpec) -> StudySpec:
    """The spec with the model that gives its vision, if any has it and the spec names none.

    Raises:
        SpecError: a model's configuration cannot be read.
    """
    if spec.vision_model is not None:
        return spec
    for key, model in spec.model_ids().items():
        if is_vision_language(load_config(model, key)):
            return spec.model_copy(update={"vision": key.removeprefix("models.")})
    return spec


def _check_vision(spec: StudySpec, merged: Any, first: str) -> None:
    """What stands for images must be a token of the merged model, which has the first one's."""
    model = spec.vision_model
    assert model is not None
    key = next(key for key, other in spec.model_ids().items() if other == model)
    config = load_config(model, key)
    if not is_vision_language(config):
        raise SpecError(
            f"vision: {key} ({model}) is none of the vision-language models that can be merged, "
            f"which are of type {', '.join(VISION_MODELS)}"
        )
    load_processor(model, key)
    if _tokenizer_source(spec) == "union":
        return
    if missing := missing_tokens(config.to_dict(), load_tokenizer(model, key), merged):
        raise SpecError(
            f"{key}: its token {missing[0]}, which stands for images, is none of {first}; "
            + _match_images(spec)
        )


def _tokenizer_source(spec: StudySpec) -> str | None:
    if isinstance(spec, MergeSearchSpec):
        return spec.merge.tokenizer_source
    merged = spec.merged if isinstance(spec, StagedStudySpec) else None
    return merged.configuration.get("tokenizer_source") if merged else None


def _match_images(spec: StudySpec) -> str:
    if isinstance(spec, MergeSearchSpec):
        return "set merge.tokenizer_source to union and the merged model has it"
    return "name the vision-language model first"


def _check_causal(config: "PretrainedConfig", key: str) -> None:
    names = config.architectures or []
    # Where text is one modality of several, the layers are those of a part of the model.
    layers = getattr(config, "num_hidden_layers", None)
    causal = len(names) == 1 and names[0] in causal_language_models().values()
    if not causal or not isinstance(layers, int) or layers < 1:
        raise SpecError(
            f"{key}: {', '.join(names) or config.model_type} is no causal language model of text "
            "alone; only such models can be merged, and vision-language models of type "
            f"{', '.join(VISION_MODELS)}"
        )


def _merged_tokenizer(model: str, key: str) -> Any:
    """The first model's tokenizer, which every merged model takes over."""
    tokenizer = load_tokenizer(model, key)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise SpecError(
            f"{key}: the tokenizer of {model} has neither a padding nor an end-of-sequence token, "
            "so it makes no batches; set one in its tokenizer_config.json"
        )
    return tokenizer


def _check_stack(stack: StackSpec, configs: dict[str, "PretrainedConfig"]) -> None:
    first, one = next(iter(configs.items()))
    stack_names(one.model_type, first)
    check_same_in_a_stack(configs)
    if 2 * stack.anchors > one.num_hidden_layers:
        raise SpecError(
            f"stack.anchors: {first} has {one.num_hidden_layers} layers, too few for "
            f"{stack.anchors} at each end"
        )


def _check_layer_groups(
    spec: MergeSearchSpec, layers: int, shapes: dict[str, tuple[int, ...]]
) -> None:
    size = spec.merge.layer_group_size
    if size is not None and size > layers:
        raise SpecError(
            f"merge.layer_group_size: {size} is more than the models' {layers} layers; "
            "leave it out for one group"
        )
    taken: set[str] = set()
    for text in spec.merge.layer_groups or ():
        matching = {name for name in shapes if text in name}
        if not matching:
            raise SpecError(
                f"merge.layer_groups: no tensor's name contains '{text}'; names look like "
                f"{_example_name(shapes)}"
            )
        if matching <= taken:
            raise SpecError(
                f"merge.layer_groups: every tensor that '{text}' matches is taken by an earlier "
                "filter; write it before that one, or leave it out"
            )
        taken |= matching


def _check_architecture(
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


def _where(a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str) -> str:
    """The first tensor that one has not, or has in another shape, if there is one."""
    want, have = parameter_shapes(a, first), parameter_shapes(b, key)
    names = (n for n in {**want, **have} if not _alike(want.get(n), have.get(n), a, b))
    return next((f" (tensor {name})" for name in names), "")


def _check_vocabulary(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if spec.any_vocabulary:
        return
    if a.vocab_size != b.vocab_size:
        raise SpecError(
            f"{key}: vocabulary of {b.vocab_size} tokens, but {first} has {a.vocab_size}; "
            + _match(spec)
        )


def _match(spec: StudySpec) -> str:
    return _MATCHED_BY_MERGEKIT if isinstance(spec, MergeSearchSpec) else _OTHERS_UNUSED


def _check_tokenizer(
    spec: StudySpec, tokenizer: Any, config: "PretrainedConfig", first: str, key: str
) -> Any:
    """The model's own tokenizer, None if it has none."""
    model = spec.model_ids()[key]
    try:
        other = load_tokenizer(model, key)
    except SpecError:
        return None  # a source without a tokenizer takes that of the first model
    check_ids(other, config.vocab_size, model, key)
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


def _check_dtype(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if spec.dtype is None and a.dtype != b.dtype:
        where = "merge" if isinstance(spec, MergeSearchSpec) else "stack"
        raise SpecError(
            f"{key}: dtype {_dtype_name(b)}, but {first} has {_dtype_name(a)}; "
            f"set {where}.dtype to the one to merge in"
        )


def _check_shapes(a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str) -> None:
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


def _alike(
    x: tuple[int, ...] | None,
    y: tuple[int, ...] | None,
    a: "PretrainedConfig",
    b: "PretrainedConfig",
) -> bool:
    """Has a tensor the same shape in both, but for rows where the vocabularies differ?"""
    same_but_rows = x is not None and y is not None and x[1:] == y[1:]
    return x == y or (same_but_rows and a.vocab_size != b.vocab_size)


def _example_name(shapes: dict[str, tuple[int, ...]]) -> str:
    return next((name for name in shapes if ".0." in name), next(iter(shapes)))


def _dtype_name(config: "PretrainedConfig") -> str:
    return str(config.dtype).removeprefix("torch.")
