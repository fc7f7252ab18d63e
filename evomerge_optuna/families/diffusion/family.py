"""Pipelines of diffusers: their denoisers are merged, all else is that of one of them."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import ClassVar

from evomerge_optuna.devices import torch_device
from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.families.base import Architecture, Asked, Family, Loaded
from evomerge_optuna.families.diffusion.fit import (
    check_blocks,
    check_configs,
    check_headers,
    check_search,
)
from evomerge_optuna.families.diffusion.lora import FusedStream, lora_layers
from evomerge_optuna.families.diffusion.part import (
    kept_headers,
    part_config_of,
    part_folder,
    part_headers,
)
from evomerge_optuna.families.diffusion.repeat import why_it_differs, without_layers
from evomerge_optuna.families.diffusion.whole import write_whole
from evomerge_optuna.families.fit import check_layer_groups
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.files import check_files
from evomerge_optuna.models.headers import Header
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.original_layout import in_original_layout
from evomerge_optuna.models.pipeline_part import blocks_of, check_whole, tensors_on_meta
from evomerge_optuna.models.pipelines import PIPELINE, checkpoint_folders, denoiser_files
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.models.single_file import write_single_file
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.recipes.merge import Fused, MergeRecipe
from evomerge_optuna.spec import MergeSearchSpec, StudySpec
from evomerge_optuna.spec.engines import Need


class Diffusion(Family):
    """Pipelines of diffusers that draw pictures."""

    name: ClassVar[str] = "diffusion pipeline"
    kinds: ClassVar[tuple[str, ...]] = (PIPELINE,)
    merged_part: ClassVar[str] = "denoiser"
    kept_part: ClassVar[str] = "autoencoder, scheduler and tokenizer"
    answers: ClassVar[Asked] = "images"
    keeps_reader: ClassVar[bool] = True
    engine: ClassVar[str] = "diffusers"
    needs: ClassVar[Need | None] = "drawing"
    pipeline_tag: ClassVar[str] = "text-to-image"
    mergekit_program: ClassVar[str] = "mergekit-pytorch"

    def merged_folder(self, folder: Path, components: Sequence[str] = ()) -> Path:
        return part_folder(folder, components)

    def merged_headers(
        self, model: OpenedModel, components: Sequence[str] = ()
    ) -> Mapping[str, Header]:
        found = part_headers(model, components)
        if found is not None:
            return found
        config = part_config_of(model, components)  # the hub does not list the tensors
        return {n: Header(tuple(t.shape), "F32") for n, t in tensors_on_meta(config).items()}

    def kept_size(self, model: OpenedModel, components: Sequence[str] = ()) -> int:
        return sum(h.count * h.itemsize for h in kept_headers(model, components).values())

    def check_complete(self, model: OpenedModel, components: Sequence[str] = ()) -> None:
        found = part_headers(OpenedModel(str(model.folder), model.key), components) or {}
        shapes = {name: header.shape for name, header in found.items()}
        check_whole(part_config_of(model, components), shapes)

    def reader(self, model: OpenedModel) -> Reader:
        from transformers import AutoTokenizer

        folder = model.small_files / "tokenizer"
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:
            raise SpecError(
                f"{model.key}: the tokenizer of {model.name} cannot be read: {one_line(error)}; "
                "name a pipeline that draws what a text says"
            ) from error
        return Reader(tokenizer)

    def check_reader(self, reader: Reader, folder: Path, name: str, key: str) -> None:
        """Nothing: a text encoder is never given a token that its tokenizer does not have."""

    def load(self, folder: Path, device: str, dtype: str | None = None) -> Loaded:
        raise NotImplementedError("a pipeline is loaded by the engine diffusers")

    def completed(self, spec: StudySpec, models: Mapping[str, OpenedModel]) -> StudySpec:
        if not isinstance(spec, MergeSearchSpec) or spec.merge.blocks is not True:
            return spec
        config = part_config_of(next(iter(models.values())), ())
        return spec.with_blocks(tuple(blocks_of(tensors_on_meta(config))))

    def check(self, spec: StudySpec, models: Mapping[str, OpenedModel]) -> Architecture:
        torch_device(spec.evaluation.device)
        search = check_search(spec, models)
        for key, model in models.items():
            if not model.is_on_hub:  # else once it is downloaded
                for place in checkpoint_folders(model.small_files):
                    check_files(place, f"{key} ({model.name}): {place.name}")
        configs = {key: part_config_of(model, spec.components) for key, model in models.items()}
        check_configs(configs)
        headers = {k: self.merged_headers(m, spec.components) for k, m in models.items()}
        dtypes = check_headers(search, headers)
        first = next(iter(models))
        layers = configs[first].num_hidden_layers
        shapes = {name: header.shape for name, header in headers[first].items()}
        if search.merge.layer_group_size is not None and layers == 1:
            raise SpecError(
                f"merge.layer_group_size: {configs[first].architectures[0]} has blocks of "
                "different kinds and no depth; write blocks: true"
            )
        check_layer_groups(search.merge, layers, shapes)
        check_blocks(search, blocks_of(shapes))
        host = models[spec.host_key or first]
        _ = self.reader(host)
        if search.merge.after is not None:
            try:
                lora_layers(host.small_files, search.merge.after)
            except CandidateError as error:
                raise SpecError(str(error)) from error
        return Architecture(
            name=configs[first].architectures[0],
            layers=dict.fromkeys(models, layers),
            parameters=sum(map(prod, shapes.values())),
            remarks=(),
            others=(),
            dtypes=dtypes,
            tokens=None,
        )

    def fused(self, merged: Stream, host: str, after: Fused) -> Stream:
        return FusedStream(merged, host, after)

    def write(self, host: str | None, merged: Stream, folder: Path) -> str:
        assert host is not None
        return write_whole(host, merged, folder)

    def for_mergekit(self, recipe: MergeRecipe, locate: Callable[[str], str]) -> MergeRecipe:
        def file(model: str) -> str:
            files = denoiser_files(local_folder(model))
            return str(files[0] if len(files) == 1 else files[0].parent)

        return without_layers(recipe).located(file)

    def why_mergekit_differs(self, recipe: MergeRecipe) -> list[str]:
        files = max(len(denoiser_files(local_folder(model))) for model in recipe.models())
        return why_it_differs(recipe, files)

    def check_single_file(self, host: str | None) -> None:
        assert host is not None
        in_original_layout(local_folder(host), f"--single-file: {host}", "meta")

    def write_single_file(self, folder: Path, file: Path) -> str:
        write_single_file(folder, file, "--single-file")
        return f"checked: diffusers reads every tensor of {file.name} as those of the folder"

    def write_for_others(self, folder: Path) -> None:
        """Nothing: it has the files that diffusers writes."""
