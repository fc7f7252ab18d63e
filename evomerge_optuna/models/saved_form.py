"""A checkpoint's weights as transformers saves them: in the layout that other programs read, too.

In memory transformers 5 joins the experts of a layer, and calls some tensors by other names than
their files do. mergekit merges and writes what is in memory.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from evomerge_optuna.models.layout import meta_model
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.shards import tensor_names, weight_files
from evomerge_optuna.models.vision import sees

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def write_saved_form(folder: Path) -> None:
    """Writes the weights of a merged text model anew, where its files have the layout of memory.

    Raises:
        IncompleteError: they are not all.
        OSError: a file cannot be read or written.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if sees(config) or saved_names(config) >= set(tensor_names(folder)):
        return
    model = complete_model(AutoModelForCausalLM, folder, dtype="auto")
    with TemporaryDirectory(dir=folder) as place:
        model.save_pretrained(place)
        for old in (*weight_files(folder), *folder.glob("*.index.json")):
            old.unlink()
        for new in Path(place).glob("*.safetensors*"):
            new.rename(folder / new.name)


def saved_names(config: "PretrainedConfig") -> set[str]:
    """The names of the tensors that transformers saves of a model of this configuration."""
    from transformers.core_model_loading import revert_weight_conversion

    model = meta_model(config, "config.json")
    tied = model.all_tied_weights_keys
    there = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    return set(revert_weight_conversion(model, there))
