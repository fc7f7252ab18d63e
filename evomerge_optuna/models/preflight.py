"""Do the models of a spec fit together? Asked of their configs alone, before any weight loads."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.catalog import check_exists, load_config, load_tokenizer
from evomerge_optuna.spec import StudySpec

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


@dataclass(frozen=True)
class Architecture:
    """What the merge needs to know of the models, which all share it."""

    name: str
    layers: int
    parameters: int


def preflight(spec: StudySpec) -> Architecture:
    """Checks that every model exists and can be merged with the first one.

    Raises:
        SpecError: naming the model's key, what differs, and the cure.
    """
    models = spec.model_ids()
    for key, model in models.items():
        check_exists(model, key)
    configs = {key: load_config(model, key) for key, model in models.items()}
    first, *others = configs
    for key in others:
        _check_architecture(configs[first], configs[key], first, key)
        _check_vocabulary(spec, configs[first], configs[key], first, key)
        _check_dtype(spec, configs[first], configs[key], first, key)
        _check_shapes(configs[first], configs[key], first, key)
    config = configs[first]
    layers = config.num_hidden_layers
    size = spec.merge.layer_group_size
    if size is not None and size > layers:
        raise SpecError(
            f"merge.layer_group_size: {size} is more than the models' {layers} layers; "
            "leave it out for one group"
        )
    shapes = _tensor_shapes(config)
    for text in spec.merge.layer_groups or ():
        if not any(text in name for name in shapes):
            raise SpecError(
                f"merge.layer_groups: no tensor's name contains '{text}'; names look like "
                f"{_example_name(shapes)}"
            )
    architecture = (config.architectures or [type(config).__name__])[0]
    count = sum(_product(shape) for shape in shapes.values())
    return Architecture(name=architecture, layers=layers, parameters=count)


def _check_architecture(a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str) -> None:
    if a.model_type != b.model_type:
        raise SpecError(
            f"{key}: its architecture is {b.model_type}, that of {first} is {a.model_type}; "
            "only models of one architecture can be merged"
        )
    for attribute, words in _COMPARED:
        have, want = getattr(b, attribute, None), getattr(a, attribute, None)
        if have != want:
            raise SpecError(
                f"{key}: {words} {have}, but {first} has {want}; "
                "only models of one shape can be merged"
            )


def _check_vocabulary(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if spec.merge.tokenizer_source is not None:
        return
    cure = "set merge.tokenizer_source to base or union and mergekit matches them token by token"
    if a.vocab_size != b.vocab_size:
        raise SpecError(
            f"{key}: vocabulary of {b.vocab_size} tokens, but {first} has {a.vocab_size}; {cure}"
        )
    vocabularies = []
    for model in (spec.model_ids()[first], spec.model_ids()[key]):
        try:
            vocabularies.append(load_tokenizer(model).get_vocab())
        except SpecError:
            return  # a source without a tokenizer takes that of the base model
    if vocabularies[0] != vocabularies[1]:
        token = next(
            token
            for token in sorted(vocabularies[0].keys() | vocabularies[1].keys())
            if vocabularies[0].get(token) != vocabularies[1].get(token)
        )
        raise SpecError(
            f"{key}: its tokenizer is not that of {first} (first difference: {token!r}); {cure}"
        )


def _check_dtype(
    spec: StudySpec, a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str
) -> None:
    if spec.merge.dtype is None and a.dtype != b.dtype:
        raise SpecError(
            f"{key}: dtype {_dtype_name(b)}, but {first} has {_dtype_name(a)}; "
            "set merge.dtype to the one to merge in"
        )


def _check_shapes(a: "PretrainedConfig", b: "PretrainedConfig", first: str, key: str) -> None:
    want, have = _tensor_shapes(a), _tensor_shapes(b)
    for name in {**want, **have}:
        x, y = want.get(name), have.get(name)
        same_but_rows = x is not None and y is not None and x[1:] == y[1:]
        if x != y and not (same_but_rows and a.vocab_size != b.vocab_size):
            raise SpecError(
                f"{key}: tensor {name} has shape {y}, but {first} has {x}; "
                "only models of one shape can be merged"
            )


def _tensor_shapes(config: "PretrainedConfig") -> dict[str, tuple[int, ...]]:
    """Every parameter's shape, from a model on the meta device: nothing is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


def _example_name(shapes: dict[str, tuple[int, ...]]) -> str:
    return next((name for name in shapes if ".0." in name), next(iter(shapes)))


def _dtype_name(config: "PretrainedConfig") -> str:
    return str(config.dtype).removeprefix("torch.")


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
