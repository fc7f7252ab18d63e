"""The Hugging Face hub: `organisation/model`, with or without `@REVISION`."""

from pathlib import Path

from evomerge_optuna.derived import check_path
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.models.sources.base import CHECKPOINT, Content, Location, Source

_TWICE = "consolidated*"  # the same weights again, for other programs


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

    def folder(self, name: str) -> Path:
        from huggingface_hub import snapshot_download

        repository, revision = self.location(name)
        files = list(self._content.files)
        try:
            folder = Path(
                snapshot_download(
                    repository, revision=revision, allow_patterns=files, ignore_patterns=_TWICE
                )
            )
        except Exception as error:
            raise SpecError(not_on_hub(name, error)) from error
        check_path(folder, "HF_HOME")
        self._content.check(folder, name)
        return folder

    def mergekit_name(self, name: str) -> str:
        return name


def not_on_hub(name: str, error: Exception) -> str:
    """Why a name that could be a hub id gives no model."""
    return (
        f"'{name}' is not a local folder, not zoo:NAME, and the hub does not give it: "
        f"{first_line(error)}"
    )
