"""The engine of diffusers: a pipeline in this process, whose denoiser is each candidate's.

One pipeline is held. A merge is made in the very memory of its denoiser's parameters.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evomerge_optuna.devices import torch_device
from evomerge_optuna.engines.base import Candidate, Drawing, Picture
from evomerge_optuna.engines.batching import within_memory
from evomerge_optuna.errors import CandidateError, IncompleteError, SpecError
from evomerge_optuna.explain import first_line
from evomerge_optuna.families import family_of
from evomerge_optuna.merging.merger import MergeMerger
from evomerge_optuna.merging.recipe_merger import RecipeMerger
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.headers import STORED, headers_in
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.pipeline_part import named
from evomerge_optuna.models.pipelines import denoiser_of, pipeline_index, without_unused
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image


def check_diffusers(spec: EvaluationSpec) -> None:
    """Refuses to go on without diffusers.

    Raises:
        SpecError: it is not installed.
    """
    if find_spec("diffusers") is None:
        raise SpecError(
            "evaluation.engine: diffusers is not installed; pip install 'evomerge-optuna[images]'"
        )


class DiffusersEngine:
    """A pipeline that draws; see `ImageEngine` for what it is asked.

    Each picture begins with noise of its own, made on the CPU, so that it is the same on every
    device and in every batch, but for the rounding of the device.

    Args:
        pipeline: on its device.
        batch_size: how many pictures are drawn at a time, at most.
    """

    def __init__(self, pipeline: "DiffusionPipeline", reader: Reader, batch_size: int) -> None:
        self.pipeline = pipeline
        self._reader = reader
        self._batch_size = batch_size
        self._takes = inspect.signature(type(pipeline).__call__).parameters

    @property
    def reader(self) -> Reader:
        return self._reader

    def draw(self, asked: Sequence[Picture], how: Drawing) -> "Iterator[Image]":
        done = 0
        while done < len(asked):
            batch = self._batch(asked[done:], how)
            yield from batch
            done += len(batch)

    def _batch(self, asked: Sequence[Picture], how: Drawing) -> "list[Image]":
        """As many of the first pictures as are drawn at a time."""
        found: list[Image] = []

        def work(size: int) -> None:
            found.extend(self._draw(asked[:size], how))

        try:
            with quiet():
                within_memory(self._batch_size, work)
        except (TypeError, ValueError) as error:  # what a pipeline does not do
            name = type(self.pipeline).__name__
            raise CandidateError(f"{name} cannot draw it: {first_line(error)}") from error
        return found

    def _draw(self, batch: Sequence[Picture], how: Drawing) -> "list[Image]":
        width, height = how.size or (None, None)
        given: dict[str, Any] = {
            "prompt": [picture.prompt for picture in batch],
            "num_inference_steps": how.steps,
            "guidance_scale": how.guidance,
            "generator": [torch.Generator().manual_seed(picture.seed) for picture in batch],
            "output_type": "pil",
        }
        if any(picture.negative for picture in batch):
            given["negative_prompt"] = [picture.negative for picture in batch]
        if how.size is not None:
            given |= {"width": width, "height": height}
        if "use_resolution_binning" in self._takes:
            given["use_resolution_binning"] = False  # it would draw another size and scale that
        return [image.convert("RGB") for image in self.pipeline(**given).images]

    def costs(self) -> dict[str, float]:
        return {"parameters": sum(p.numel() for p in self.denoiser.parameters())}

    @property
    def denoiser(self) -> torch.nn.Module:
        """The component that is merged."""
        name = denoiser_of(self.pipeline.config, "the pipeline")
        found: torch.nn.Module = getattr(self.pipeline, name)
        return found

    @contextmanager
    def counting(self, on_pass: Callable[[], None]) -> Iterator[None]:
        hook = self.denoiser.register_forward_pre_hook(lambda *_: on_pass())
        try:
            yield
        finally:
            hook.remove()

    def close(self) -> None:
        """Nothing: the engine holds what it was given."""


class Builder:
    """Builds candidates in the memory of one pipeline; see `CandidateBuilder`.

    Args:
        spec: names the merger, the device, the batch size, the memory limit, and the dtype in which
            the pipeline runs; candidates are hashed in the recipe's own.
        say: is given a line about what is kept in memory, once.
    """

    def __init__(self, spec: EvaluationSpec, say: Callable[[str], None] = lambda _: None) -> None:
        self._spec = spec
        self._say = say
        self._merger = RecipeMerger(spec.device, self._make_merger)
        self._held: _Held | None = None

    def load(self, recipe: Recipe, layers_of: Collection[str] = ()) -> None:
        assert isinstance(recipe, MergeRecipe)
        self._merger.load(recipe)
        assert isinstance(recipe, MergeRecipe)
        self._pipeline_for(recipe)

    def build(self, recipe: Recipe) -> Candidate:
        assert isinstance(recipe, MergeRecipe)
        held = self._pipeline_for(recipe)
        stream = self._merger.part(recipe, held.tensors)
        with torch.no_grad():
            for name, tensor in stream:
                if (own := held.tensors[name]) is not tensor:
                    own.copy_(tensor)
        digest = stream.digest()
        return Candidate(held.engine, lambda: digest)

    def _pipeline_for(self, recipe: MergeRecipe) -> "_Held":
        assert recipe.host is not None
        if self._held is None or self._held.host != (recipe.host, recipe.components):
            self._held = None  # freed before the next is loaded
            dtype = self._spec.dtype or recipe.configuration.get("dtype")
            engine = _engine(local_folder(recipe.host), self._spec, dtype)
            tensors = _tensors(engine.pipeline, recipe.components)
            self._held = _Held((recipe.host, recipe.components), engine, tensors)
        return self._held

    def _make_merger(self) -> MergeMerger:
        if self._spec.merger == "checkpoint":
            from evomerge_optuna.merging.mergekit_merger import MergekitMerger

            return MergekitMerger(self._spec.device)
        from evomerge_optuna.merging.resident import ResidentMerger

        return ResidentMerger(self._spec.device, self._spec.memory_limit, self._say)


class _Held:
    """A pipeline in memory, and the tensors of its merged components by their names in the part."""

    def __init__(
        self,
        host: tuple[str, tuple[str, ...]],
        engine: DiffusersEngine,
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self.host = host
        self.engine = engine
        self.tensors = tensors


def load_engine(folder: Path, spec: EvaluationSpec) -> DiffusersEngine:
    """A pipeline's folder, ready to be asked; see `EngineKind` for what it raises."""
    return _engine(folder, spec, spec.dtype)


def _engine(folder: Path, spec: EvaluationSpec, dtype: str | None) -> DiffusersEngine:
    """The pipeline in a folder.

    Args:
        dtype: in which it is to run; None: that of its denoiser's tensors.
    """
    from diffusers import DiffusionPipeline

    device, model = torch_device(spec.device), OpenedModel(str(folder))
    index = pipeline_index(folder)
    denoiser = denoiser_of(index, str(folder))
    family_of(model).check_complete(model)
    wanted: torch.dtype = getattr(torch, dtype or _stored_dtype(folder / denoiser))
    options = {"requires_safety_checker": False} if "safety_checker" in index else {}
    try:
        with quiet():
            pipeline = DiffusionPipeline.from_pretrained(
                folder,
                torch_dtype=wanted,
                use_safetensors=True,
                trust_remote_code=False,
                **without_unused(index),
                **options,
            )
    except (ValueError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        raise IncompleteError(str(folder), f"cannot be loaded: {first_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return DiffusersEngine(pipeline.to(device), family_of(model).reader(model), spec.batch_size)


def _stored_dtype(folder: Path) -> str:
    """The dtype of most of a component's tensors."""
    types = [header.dtype for header in headers_in(folder, str(folder)).values()]
    names = {stored: dtype for dtype, stored in STORED.items()}
    return names.get(max(set(types), key=types.count), "float32")


def _tensors(pipeline: "DiffusionPipeline", components: Sequence[str]) -> dict[str, torch.Tensor]:
    """The tensors of a pipeline's merged components, by their names in the merged part."""
    denoiser = denoiser_of(pipeline.config, "the pipeline")
    return {
        named(component, name, denoiser): tensor
        for component in dict.fromkeys((denoiser, *components))
        for name, tensor in getattr(pipeline, component).state_dict().items()
    }
