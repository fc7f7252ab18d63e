"""LoRA adapters as they are: the modules that they change, A and B of each, and its scaling.

Only what is A and B alone can be merged with others into an adapter again; see `check_plain`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line, value
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from evomerge_optuna.models.digest import is_finite
from evomerge_optuna.models.headers import ANOTHER_COPY
from evomerge_optuna.models.layout import layout_of, meta_model, other_names
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.shards import read_tensors, weight_files

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

PREFIX = "base_model.model."  # of the names of an adapter's tensors
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<half>[AB])(\.weight)?")

# What an adapter may have beside A and B, of which a sum of adapters is no adapter: by the key of
# its configuration, in words.
_MORE = {
    "use_dora": "has magnitudes of weights beside A and B (DoRA)",
    "modules_to_save": "has whole modules beside A and B (modules_to_save)",
    "trainable_token_indices": "has tokens beside A and B (trainable_token_indices)",
    "lora_bias": "has biases beside A and B (lora_bias)",
    "target_parameters": "changes parameters that are no module's (target_parameters)",
    "use_qalora": "pools its inputs (QALoRA)",
    "alora_invocation_tokens": "begins in the middle of a text (aLoRA)",
    "use_bdlora": "has A or B in blocks (BD-LoRA)",
    "arrow_config": "chooses among others (Arrow)",
    "kasa_config": "has singular values beside A and B (KaSA)",
    "monteclora_config": "has noise beside A and B (MonteCLoRA)",
}
# Ways to begin a training that take something from the base model's own weights.
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_MERGE_EACH = "leave merge.space out, and it is merged into a model of its own first"


@dataclass(frozen=True)
class LoraHeader:
    """What an adapter adds to one module, without its values.

    Attributes:
        rank: of A and B.
        inputs, outputs: of the module; an embedding's inputs are its tokens.
        scaling: what the product of B and A is multiplied by.
        is_embedding: is the module looked up, and not multiplied by?
    """

    rank: int
    inputs: int
    outputs: int
    scaling: float
    is_embedding: bool

    @property
    def count(self) -> int:
        """How many numbers A and B have."""
        return self.rank * (self.inputs + self.outputs)


@dataclass(frozen=True)
class LoraHalves:
    """A (rank, inputs) and B (outputs, rank) of one module, in float32 or float64."""

    a: "torch.Tensor"
    b: "torch.Tensor"


@dataclass(frozen=True)
class BaseModules:
    """The modules of a base model, in its own order.

    Attributes:
        places: of each module in that order.
        transposed: those whose weight has a row for each input, as GPT-2's.
    """

    places: Mapping[str, int]
    transposed: frozenset[str]


def check_plain(adapter: Path, where: str) -> None:
    """Refuses an adapter that is more than A and B of some modules.

    Raises:
        SpecError: beginning with `where`: what it has, and the cure.
    """
    settings = lora_settings(adapter, where)
    if (kind := settings.get("peft_type")) != "LORA":
        raise SpecError(
            f"{where}: an adapter of type {value(kind)} has no A and B to merge; name a LoRA "
            f"adapter, or {_MERGE_EACH}"
        )
    for key, words in _MORE.items():
        if settings.get(key):
            raise SpecError(f"{where}: {words}, and so a merge is no adapter; {_MERGE_EACH}")
    if settings.get("bias", "none") != "none":
        raise SpecError(
            f"{where}: changes biases of the base model (bias: {value(settings['bias'])}), and so "
            f"a merge is no adapter; {_MERGE_EACH}"
        )
    begun = str(settings.get("init_lora_weights")).lower()
    if begun.startswith(_CHANGE_THE_BASE):
        raise SpecError(
            f"{where}: was begun by {begun}, which changes the base model's weights; save it with "
            "peft's path_initial_model_for_weight_conversion, and name that"
        )
    lora_headers(adapter, where)


def lora_settings(adapter: Path, where: str) -> dict[str, Any]:
    """What an adapter's configuration says.

    Raises:
        SpecError: beginning with `where`: it cannot be read.
    """
    try:
        content = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = one_line(error, 200)
        raise SpecError(
            f"{where}: {ADAPTER_CONFIG} cannot be read: {reason}; take another copy"
        ) from error
    if not isinstance(content, dict):
        raise SpecError(f"{where}: {ADAPTER_CONFIG} is no mapping; take another copy")
    return content


def lora_headers(adapter: Path, where: str) -> dict[str, LoraHeader]:
    """The modules that an adapter changes, by their names in the base model; no value is read.

    Raises:
        SpecError: beginning with `where`: a file cannot be read, or a tensor is neither A nor B.
    """
    from safetensors import SafetensorError, safe_open

    settings = lora_settings(adapter, where)
    shapes: dict[tuple[str, str], list[int]] = {}
    embeddings = set()
    try:
        with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if (parts := _parts_of(name, where)) is None:
                    continue
                module, half, is_embedding = parts
                shapes[module, half] = file.get_slice(name).get_shape()
                if is_embedding:
                    embeddings.add(module)
    except (SafetensorError, OSError) as error:
        raise SpecError(
            f"{where}: {ADAPTER_WEIGHTS} cannot be read: {error}; take another copy"
        ) from error
    found = {}
    for module in dict.fromkeys(module for module, _ in shapes):
        a, b = shapes.get((module, "A"), []), shapes.get((module, "B"), [])
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not a[0]:
            raise SpecError(
                f"{where}: A and B of {module} have the shapes {a} and {b}, of which no product is "
                "a matrix; take another copy"
            )
        found[module] = LoraHeader(
            rank=a[0],
            inputs=a[1],
            outputs=b[0],
            scaling=_scaling(settings, module, a[0]),
            is_embedding=module in embeddings,
        )
    if not found:
        raise SpecError(f"{where}: {ADAPTER_WEIGHTS} has no tensor; take another copy")
    return found


def check_values(adapter: Path, base: Path, where: str) -> None:
    """Reads all of an adapter's tensors: each is finite, and whole ones are the base model's.

    Args:
        base: the base model's folder.

    Raises:
        SpecError: beginning with `where`, naming the tensor.
    """
    from safetensors import safe_open

    whole = {}
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            if not is_finite(tensor):
                raise SpecError(
                    f"{where}: tensor {name} has NaN or infinite values; {ANOTHER_COPY}"
                )
            if _parts_of(name, where) is None:
                whole[name] = tensor
    if not whole:
        return
    config = OpenedModel(str(base), where).config
    tied = layout_of(config).tied if getattr(config, "tie_word_embeddings", False) else {}
    named = {name: name.removeprefix(PREFIX).replace(".base_layer.", ".") for name in whole}
    wanted = {own for name in named.values() for own in (name, tied.get(name, name))}
    others = other_names(config, weight_files(base))
    in_files = {there: own for own in wanted for there in (own, *others.get(own, ()))}
    have = dict(read_tensors(base, in_files.get))
    for name, tensor in whole.items():
        own = have.get(named[name], have.get(tied.get(named[name], "")))
        if own is None or own.shape != tensor.shape or not tensor.equal(own.to(tensor.dtype)):
            raise _tensor_beside(name, where)


def read_lora(adapter: Path) -> Iterator[tuple[str, LoraHalves]]:
    """A and B of every module that an adapter changes, by the module's name.

    Raises:
        OSError: a file cannot be read.
    """
    import torch
    from safetensors import safe_open

    halves: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if (parts := _parts_of(name, str(adapter))) is None:
                continue
            module, half, _ = parts
            tensor = file.get_tensor(name)
            own = halves.setdefault(module, {})
            # As peft does, which keeps adapters in no less than float32.
            own[half] = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
            if len(own) == 2:
                yield module, LoraHalves(own["A"], own["B"])


def tensor_name(module: str, half: str, *, is_embedding: bool) -> str:
    """The name of A or B of a module in an adapter's file."""
    end = f"lora_embedding_{half}" if is_embedding else f"lora_{half}.weight"
    return f"{PREFIX}{module}.{end}"


def base_modules(config: "PretrainedConfig", key: str) -> BaseModules:
    """The modules of a model of this configuration.

    Raises:
        SpecError: naming `key`: there is no model of this configuration.
    """
    from transformers.pytorch_utils import Conv1D

    names = dict(meta_model(config, key).named_modules())
    return BaseModules(
        places={name: place for place, name in enumerate(names)},
        transposed=frozenset(name for name, part in names.items() if isinstance(part, Conv1D)),
    )


@cache
def layer_of(module: str) -> int | None:
    """The number of the layer that a module is in; None: it is before or behind all layers."""
    return next((int(part) for part in module.split(".") if part.isdecimal()), None)


def _parts_of(name: str, where: str) -> tuple[str, str, bool] | None:
    """The module, A or B, and whether the module is an embedding, of a tensor's name.

    None: it is a whole tensor, as peft saves embeddings that have an A and B.
    """
    found = _TENSOR.fullmatch(name.removeprefix(PREFIX))
    if found is not None:
        return found["module"], found["half"], found["embedding"] is not None
    if ".lora_A." in name or ".lora_B." in name:
        raise SpecError(
            f"{where}: peft does not load the tensor {name}, whose name is not that of its files; "
            "save it anew with peft's save_pretrained"
        )
    if name.endswith(".weight"):
        return None
    raise _tensor_beside(name, where)


def _tensor_beside(name: str, where: str) -> SpecError:
    return SpecError(
        f"{where}: has a tensor {name} beside A and B that is not the base model's, and so a merge "
        f"is no adapter; {_MERGE_EACH}"
    )


def _scaling(settings: Mapping[str, Any], module: str, rank: int) -> float:
    from peft.utils.other import get_pattern_key

    alphas = settings.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), module), settings.get("lora_alpha", 8))
    return float(alpha / rank**0.5 if settings.get("use_rslora") else alpha / rank)
