"""A checkpoint's weights as transformers saves them: in the layout that other programs read, too.

In memory transformers 5 joins the experts of a layer, and calls some tensors by other names than
their files do. mergekit merges and writes what is in memory.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.models.layout import meta_model
from evomerge_optuna.models.shards import (
    INDEX,
    read_tensors,
    tensor_names,
    weight_files,
    write_tensors,
)
from evomerge_optuna.models.transformers_internals import as_saved

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig


def write_saved_form(folder: Path) -> None:
    """Writes the weights of a merged text model anew, where its files have the layout of memory.

    Raises:
        OSError: a file cannot be read or written.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    there = dict.fromkeys(tensor_names(folder))
    if _saved(config, meta_model(config, "config.json").state_dict()).keys() >= there.keys():
        return
    tensors = dict(read_tensors(folder))
    for old in (*weight_files(folder), folder / INDEX):
        old.unlink(missing_ok=True)
    write_tensors(folder, _saved(config, tensors).items())


def _saved(
    config: "PretrainedConfig", tensors: "Mapping[str, torch.Tensor]"
) -> "dict[str, torch.Tensor]":
    """The tensors of a model as its files have them."""
    model = meta_model(config, "config.json")
    tied = model.all_tied_weights_keys
    own = {name: tensor for name, tensor in tensors.items() if name not in tied}
    return as_saved(model, own)
