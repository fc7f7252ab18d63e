"""The Hugging Face hub: `organisation/model`, with or without `@REVISION`."""

from collections.abc import Sequence
from pathlib import Path

from evomerge_optuna.derived import check_path
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.models.pipelines import PIPELINE_INDEX, component_names
from evomerge_optuna.models.sources.base import CHECKPOINT, Content, Location, Source

_TWICE = ("consolidated*",)  # the same weights again, for other programs
_VARIANTS = ("*.fp16.safetensors", "*.fp16-*.safetensors", "*.non_ema.safetensors")
_WEIGHTS = ("diffusion_pytorch_model*.safetensors", "model*.safetensors")
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja")


class HubSource(Source):
    """Repositories with checkpoints, or with adapters. Every name may be one."""

    def __init__(self, content: Content = CHECKPOINT) -> None:
        self._content = content

    def recognises(self, name: str) -> bool:
        return True

    def check(self, name: str, key: str) -> None:
        """Whether the hub has it is seen when it is asked."""

    def is_on_hub(self, name: str) -> bool:
        return True

    def location(self, name: str) -> Location:
        repository, _, revision = name.partition("@")
        return repository, revision or None

    def has_pipeline(self, name: str) -> bool:
        from huggingface_hub import hf_hub_download

        repository, revision = self.location(name)
        try:
            hf_hub_download(repository, PIPELINE_INDEX, revision=revision)
        except Exception:  # it has none, or nothing can be had of it, which is seen later
            return False
        return True

    def small_files(self, name: str) -> Path:
        return self._download(name, _SMALL, ())

    def folder(self, name: str) -> Path:
        if self._content is CHECKPOINT and self.has_pipeline(name):
            # The same weights as one file lie beside the components, and in other types in them.
            parts = component_names(self.small_files(name))
            files = [f"{part}/{file}" for part in parts for file in _WEIGHTS]
            folder = self._download(name, (*_SMALL, *files), (*_TWICE, *_VARIANTS))
        else:
            folder = self._download(name, self._content.files, _TWICE)
        self._content.check(folder, name)
        return folder

    def _download(self, name: str, files: Sequence[str], but: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        repository, revision = self.location(name)
        try:
            folder = Path(
                snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=list(files),
                    ignore_patterns=list(but),
                )
            )
        except Exception as error:
            raise SpecError(not_on_hub(name, error)) from error
        check_path(folder, "HF_HOME")
        return folder

    def mergekit_name(self, name: str) -> str:
        return name


def not_on_hub(name: str, error: Exception) -> str:
    """Why a name that could be a hub id gives no model."""
    return (
        f"'{name}' is not a local folder, not zoo:NAME, and the hub does not give it: "
        f"{first_line(error)}"
    )
