"""A LoRA fused into a merged denoiser, as few-step distillations are: W + scale B A."""

import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.digest import Digest
from evomerge_optuna.models.pipeline_part import components_on_meta, config_of_folders
from evomerge_optuna.models.pipelines import denoiser_of, pipeline_index
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.merge import Fused
from evomerge_optuna.spec import MergeSearchSpec, StudySpec

_FILE = "pytorch_lora_weights.safetensors"  # as diffusers saves them
_NAME = "after"  # of the adapter
_KEY = "merge.after.lora"


class FusedStream:
    """A merged part on its way, into which a LoRA is fused; see `Stream`.

    It is what `fuse_lora` of diffusers gives. What a LoRA has for text encoders is left out.

    Args:
        host: the name of the pipeline whose class reads the LoRA.
    """

    def __init__(self, merged: Stream, host: str, after: Fused) -> None:
        self.structure = f"{merged.structure} {after.model_dump_json()}"
        self._merged = merged
        self._host = host
        self._after = after
        self._digest = Digest()

    def __iter__(self) -> Iterator[NamedTensor]:
        layers: Mapping[str, Any] | None = None
        for name, tensor in self._merged:
            if layers is None:
                layers = lora_layers(local_folder(self._host), self._after, str(tensor.dtype))
            if (layer := layers.get(name)) is not None:
                for part in (layer.lora_A, layer.lora_B):
                    part.to(tensor.device)
                tensor.add_(layer.get_delta_weight(_NAME).to(tensor.dtype))
            self._digest.add(name, tensor)
            yield name, tensor

    def digest(self) -> str:
        return self._digest.hexdigest()

    def write_files_beside_weights(self, folder: Path) -> None:
        self._merged.write_files_beside_weights(folder)


def lora_layers(pipeline: Path, after: Fused, dtype: str = "torch.float32") -> dict[str, Any]:
    """peft's layer for each weight of a denoiser that a LoRA changes, by the weight's name.

    Args:
        pipeline: the folder of a pipeline; of its denoiser no weight is read.
        dtype: of the weights, as torch prints it, in which the changes are computed.

    Raises:
        CandidateError: the LoRA cannot be read, or is none of this denoiser.
    """
    import diffusers
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    file = lora_file(after.lora)
    index = pipeline_index(pipeline)
    name = denoiser_of(index, str(pipeline))
    config = config_of_folders({name: pipeline / name})
    wanted: torch.dtype = getattr(torch, dtype.removeprefix("torch."))
    # Without values: memory that nobody touches is not taken.
    denoiser: Any = components_on_meta(config)[name].to(wanted).to_empty(device="cpu")
    try:
        with quiet():
            read = getattr(diffusers, index["_class_name"]).lora_state_dict
            takes = inspect.signature(read).parameters
            alphas = {"return_alphas": True} if "return_alphas" in takes else {}
            options = {"unet_config": denoiser.config} if name == "unet" else {}
            state, *between, metadata = read(
                str(file), use_safetensors=True, return_lora_metadata=True, **alphas, **options
            )
            denoiser.load_lora_adapter(
                state,
                prefix=name,
                network_alphas=between[0] if between else None,
                metadata=metadata,
                adapter_name=_NAME,
            )
    except Exception as error:  # every form of LoRA has its own
        raise CandidateError(f"{_KEY}: {after.lora} cannot be read: {first_line(error)}") from error
    layers = [(n, own) for n, own in denoiser.named_modules() if isinstance(own, BaseTunerLayer)]
    if not layers:
        raise CandidateError(
            f"{_KEY}: {after.lora} changes nothing of a {config.architectures[0]}; name a LoRA of "
            "such models"
        )
    for _, layer in layers:
        layer.scale_layer(after.scale)
    return {f"{n}.weight": layer for n, layer in layers}


def lora_file(name: str) -> Path:
    """The file of a LoRA: a path, a folder as diffusers saves it, a hub repository or a file of it.

    Raises:
        SpecError: there is none.
    """
    path = Path(os.path.expanduser(name))
    if path.is_dir():
        path /= _FILE
    if path.is_file():
        return path
    if name.startswith(("/", "./", "../", "~")) or name.count("/") == 0:
        raise SpecError(f"{_KEY}: there is no file {path}; correct the path")
    from huggingface_hub import hf_hub_download

    organisation, repository, *file = name.split("/", 2)
    try:
        return Path(hf_hub_download(f"{organisation}/{repository}", file[0] if file else _FILE))
    except Exception as error:
        raise SpecError(f"{_KEY}: the hub does not give {name}: {first_line(error)}") from error


def fingerprint_lora(spec: StudySpec) -> dict[str, str]:
    """SHA-256 of the LoRA that a spec fuses into its merges, by its place in the spec.

    Raises:
        SpecError: there is none.
    """
    if not isinstance(spec, MergeSearchSpec) or spec.merge.after is None:
        return {}
    with lora_file(spec.merge.after.lora).open("rb") as stream:
        return {_KEY: hashlib.file_digest(stream, "sha256").hexdigest()}
