"""Checkpoints of one file: `./model.safetensors`, or `./model.safetensors@PIPELINE`.

The pipeline, of another source, gives the configuration. Where none is named it is the one that
diffusers takes the file for.
"""

import os
from pathlib import Path

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.single_file import (
    check_single_file,
    folder_of_single_file,
    pipeline_on_hub,
)
from evomerge_optuna.models.sources.base import Location, Source
from evomerge_optuna.spec.single_file import is_single_file, split_single_file


class SingleFileSource(Source):
    """Files with all weights of a pipeline.

    Args:
        pipelines: the sources of pipelines; the first that recognises a name gives it.
    """

    def __init__(self, pipelines: tuple[Source, ...]) -> None:
        self._pipelines = pipelines

    def recognises(self, name: str) -> bool:
        return is_single_file(name) and not os.path.isdir(os.path.expanduser(name))

    def check(self, name: str, key: str) -> None:
        file, pipeline = _split(name)
        check_single_file(file, f"{key}: {file}")
        if pipeline is None:
            return
        source = self._source(pipeline)
        source.check(pipeline, key)
        if not source.has_pipeline(pipeline):
            raise SpecError(
                f"{key}: {file} is read with the configuration of {pipeline}, which is no "
                "pipeline of diffusers; write FILE.safetensors@PIPELINE"
            )

    def location(self, name: str) -> Location:
        return str(self.folder(name)), None

    def has_pipeline(self, name: str) -> bool:
        return True

    def folder(self, name: str) -> Path:
        file, pipeline = _split(name)
        if pipeline is None:
            pipeline = pipeline_on_hub(file)
        small = self._source(pipeline).small_files(pipeline)
        return folder_of_single_file(file, small, str(file))

    def _source(self, pipeline: str) -> Source:
        return next(source for source in self._pipelines if source.recognises(pipeline))


def _split(name: str) -> tuple[Path, str | None]:
    file, pipeline = split_single_file(name)
    return Path(os.path.expanduser(file)), pipeline
