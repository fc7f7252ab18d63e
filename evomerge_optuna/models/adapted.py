"""A model with its adapter as an ordinary checkpoint, which peft makes, and which is tried."""

import hashlib
import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.adapters import (
    ADAPTER_WEIGHTS,
    config_with_adapter,
    has_tokenizer,
)
from evomerge_optuna.models.files import check_unquantized
from evomerge_optuna.models.fingerprint import TOKENIZER_FILES, fingerprint

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_WAY = "2"  # of merging; another number where it makes another checkpoint of the same files
_TOKENS = 16  # in the text on which a merged model is tried
# How far logits may be apart, as a part of their size: rounding moves some.
_ROUNDING = {"float64": 1e-3, "float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
_MERGE_IT = "merge it yourself (merge_and_unload) and name the checkpoint"
# Warnings of peft after which a model is not what was asked for, whatever it answers.
_WRONG = re.compile(r"missing adapter keys|no (module|parameter) was matched|NaN")


def merged_folder(base: Path, adapter: Path, name: str) -> Path:
    """The checkpoint of the base model with the adapter merged into it, written once and kept.

    In the base model's dtype; the same tensors as mergekit makes of `model+adapter`, which calls
    peft alike, but that tied embeddings which the adapter changes apart are untied first. With the
    tokenizer that lies beside the adapter, else the base model's.

    Args:
        name: of both, for messages.

    Raises:
        SpecError: they do not fit, or peft cannot merge them, or what it made of them answers
            otherwise than the adapter on its base model.
    """
    both = hashlib.sha256(repr((_WAY, fingerprint(base, adapter))).encode()).hexdigest()
    return derived_folder(
        "adapter", both[:16], lambda folder: write_merged(base, adapter, name, folder)
    )


def is_changed_at_the_ends(base: Path, merged: Path) -> bool:
    """Has a merged adapter untied the base model's embeddings, or given them more rows?"""
    from transformers import AutoConfig

    before, after = (AutoConfig.from_pretrained(f, trust_remote_code=False) for f in (base, merged))
    return any(
        getattr(before, name, None) != getattr(after, name, None)
        for name in ("tie_word_embeddings", "vocab_size")
    )


def write_merged(base: Path, adapter: Path, name: str, folder: Path) -> None:
    """Writes the checkpoint of the base model with the adapter in it; see `merged_folder`."""
    import torch

    with _warned() as said, torch.no_grad():
        adapted = _adapted(base, adapter, name)
        if wrong := next(filter(_WRONG.search, said), None):
            raise SpecError(f"{name}: peft says: {wrong}; {_MERGE_IT}")
        inputs = _inputs(adapted)
        wanted = adapted(inputs).logits
        if not wanted.isfinite().all():
            raise SpecError(f"{name}: with the adapter it answers NaN; take another copy of either")
        _untie(adapted.get_base_model())
        was_tied = adapted.config.tie_word_embeddings
        try:
            merged = adapted.merge_and_unload()
        except (NotImplementedError, ValueError, RuntimeError, TypeError) as error:
            raise SpecError(
                f"{name}: peft cannot merge it: {one_line(error, 200)}; {_MERGE_IT}"
            ) from error
        if was_tied:
            _tie_if_equal(merged)
        merged.save_pretrained(folder)
        del adapted, merged  # a large model is not held twice
        _copy_tokenizer(base, adapter, folder)
        apart = _apart(wanted, _load(folder, name)(inputs).logits)
    if not apart <= _ROUNDING[str(wanted.dtype).removeprefix("torch.")]:
        reason = f" (it warned: {one_line(said[-1], 200)})" if said else ""
        raise SpecError(
            f"{name}: merged by peft it answers otherwise than the adapter on its base model, "
            f"logits differ by {apart:.0%}{reason}; {_MERGE_IT}"
        )


def _adapted(base: Path, adapter: Path, name: str) -> "PeftModel":
    """The base model with the adapter beside its weights, each of the adapter's tensors in it."""
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    check_unquantized(config.to_dict(), name)
    rows = config_with_adapter(config, adapter, name).vocab_size
    model = _load(base, name)
    if rows != config.vocab_size:  # every row is the adapter's, so that it does not matter which
        model.resize_token_embeddings(rows, mean_resizing=False)
    try:
        adapted = PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # what does not fit, peft says in many ways
        raise SpecError(
            f"{name}: peft cannot put it on this base model: {one_line(error, 200)}; name the "
            "model that it was trained on"
        ) from error
    loaded = get_peft_model_state_dict(adapted, save_embedding_layers=True)
    for tensor, values in load_file(adapter / ADAPTER_WEIGHTS).items():
        if tensor not in loaded or not _same(loaded[tensor], values):
            raise SpecError(f"{name}: peft does not load its tensor {tensor}; {_MERGE_IT}")
    return adapted.eval()


def _same(loaded: "torch.Tensor", values: "torch.Tensor") -> bool:
    return loaded.shape == values.shape and bool((loaded == values.to(loaded.dtype)).all())


def _load(folder: Path, name: str) -> "PreTrainedModel":
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):
        raise SpecError(f"{name}: there is no tensor {missing[0]} in {folder}; take another copy")
    return model.eval()


def _untie(model: "PreTrainedModel") -> None:
    """Gives the head weights of its own, where the adapter is about to change either end alone."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tuned = [isinstance(end, BaseTunerLayer) for end in ends]
    embeddings, head = (
        end.get_base_layer() if is_tuned else end for end, is_tuned in zip(ends, tuned, strict=True)
    )
    if any(tuned) and embeddings.weight is head.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _tie_if_equal(model: "PreTrainedModel") -> None:
    """Of a model that was tied: says in its configuration what is true of the weights now."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    model.config.tie_word_embeddings = embeddings.weight.equal(head.weight)
    if model.config.tie_word_embeddings:
        head.weight = embeddings.weight


def _inputs(model: "PreTrainedModel") -> "torch.Tensor":
    """Tokens from all over the vocabulary, the last ones among them, where added tokens are."""
    import torch

    rows = model.config.vocab_size
    spread = torch.linspace(0, rows - 1, min(rows, _TOKENS)).long()
    return torch.cat([spread, torch.arange(max(0, rows - 3), rows)])[None]


def _apart(wanted: "torch.Tensor", found: "torch.Tensor") -> float:
    """How far logits are apart, as a part of their size; what moves all alike does not count.

    At the worst place; in half precision at the middle one, since a choice of experts may tip over.
    """
    a, b = (logits.float() - logits.float().mean(-1, keepdim=True) for logits in (wanted, found))
    each = (a - b).norm(dim=-1) / a.norm(dim=-1).mean()  # not its own: a padding token's may be 0
    return float(each.median() if wanted.dtype.itemsize < 4 else each.max())


def _copy_tokenizer(base: Path, adapter: Path, folder: Path) -> None:
    """The tokenizer that lies beside the adapter, else the base model's, and how answers end."""
    own = has_tokenizer(adapter)
    for file in TOKENIZER_FILES:
        place = adapter if own and file != "generation_config.json" else base
        if (place / file).is_file():
            shutil.copyfile(place / file, folder / file)


@contextmanager
def _warned() -> Iterator[list[str]]:
    """What libraries warn of within the block, in one line each, but for what is deprecated."""
    said: list[str] = []

    def note(text: object) -> None:
        if "deprecated" not in str(text):
            said.append(one_line(text, 300))

    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: note(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("peft", "transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: note(message)
            yield said
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
