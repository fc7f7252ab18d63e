"""What a family of models is: the kind of model that a study merges."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.headers import Header
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.models.stream import Stream, write_stream
from evomerge_optuna.recipes.merge import Fused, MergeRecipe
from evomerge_optuna.spec import StudySpec
from evomerge_optuna.spec.engines import Need

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

Asked: TypeAlias = Literal["texts", "images"]  # what a model is asked for
Loaded = tuple["PreTrainedModel", Reader]


@dataclass(frozen=True)
class Architecture:
    """What a study needs to know of its models, which all share it.

    Attributes:
        name: the class of the merged model.
        layers: how many layers each model has, by the model's key in the spec.
        parameters: how many numbers are merged, of the first model.
        remarks: lines for the user where the models' configurations differ.
        others: keys of the models that answer differently with the merge's configuration.
        dtypes: the dtype that each model's configuration names, by the model's key.
        tokens: the size of the first model's vocabulary and of the union of all vocabularies;
            None: the merge has no union.
    """

    name: str
    layers: dict[str, int]
    parameters: int
    remarks: tuple[str, ...]
    others: tuple[str, ...]
    dtypes: dict[str, str | None]
    tokens: tuple[int, int] | None


class Host(Protocol):
    """A model in memory that keeps everything but the part that is merged.

    Attributes:
        name: the host's name.
    """

    name: str

    @property
    def model(self) -> "PreTrainedModel":
        """The host with the last merged part."""
        ...

    @property
    def reader(self) -> Reader:
        """What the host with the last merged part reads with."""
        ...

    def complete(self, merged: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        """Puts a merged part into the host. Both share its parameters until the next call.

        Raises:
            CandidateError: the merged part does not fit.
        """

    def digest(self, merged: str) -> str:
        """SHA-256 of the whole model's tensors, from the digest of the merged part."""
        ...

    def release(self) -> None:
        """Frees the last merged part."""


class Family(ABC):
    """A kind of model. Each family is one row of the table in `families`.

    A study belongs to the family of its host, the model that keeps everything but the merged part;
    a study without a host merges whole causal language models.

    Attributes:
        name: what users and messages call it.
        kinds: the `model_type` of the configurations of such models.
        merged_part: what is merged of such models, for sentences.
        kept_part: what a host keeps, for sentences; empty where everything is merged.
        answers: what such models are asked for.
        keeps_reader: a host reads as it did, whatever is merged.
        engine: what runs such models unless a spec names another.
        needs: what an engine must give to run them, which not every engine does.
        pipeline_tag: what such a model does, as the hub calls it.
        mergekit_program: the command of mergekit that merges such models.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    merged_part: ClassVar[str]
    kept_part: ClassVar[str] = ""
    answers: ClassVar[Asked] = "texts"
    keeps_reader: ClassVar[bool] = False
    engine: ClassVar[str] = "transformers"
    needs: ClassVar[Need | None] = None
    pipeline_tag: ClassVar[str]
    mergekit_program: ClassVar[str] = "mergekit-yaml"

    # One model.

    @abstractmethod
    def merged_folder(self, folder: Path, components: Sequence[str] = ()) -> Path:
        """The folder with the part of a model that is merged; `folder` where that is all of it.

        Args:
            components: those of a pipeline that are merged beside its denoiser.

        Raises:
            SpecError: the part cannot be taken out.
        """

    @abstractmethod
    def merged_headers(
        self, model: OpenedModel, components: Sequence[str] = ()
    ) -> Mapping[str, Header]:
        """Every tensor of a model that is merged, by name; no weight is read or downloaded.

        Raises:
            SpecError: a file cannot be read.
        """

    def kept_size(self, model: OpenedModel, components: Sequence[str] = ()) -> int:
        """Bytes of a model's tensors that are not merged, which a host keeps.

        Raises:
            SpecError: a file cannot be read.
        """
        return 0

    @abstractmethod
    def check_complete(self, model: OpenedModel, components: Sequence[str] = ()) -> None:
        """Checks that the model's class finds every tensor, and knows every tensor there is.

        Raises:
            IncompleteError: naming the tensor.
        """

    @abstractmethod
    def reader(self, model: OpenedModel) -> Reader:
        """What a model reads with.

        Raises:
            SpecError: its files cannot be read.
        """

    @abstractmethod
    def check_reader(self, reader: Reader, folder: Path, name: str, key: str) -> None:
        """Checks that a model has a place for all that its reader gives it.

        Args:
            folder: of its checkpoint.
            name: of the model.
            key: its place, named in errors.

        Raises:
            SpecError: it has none for a token.
        """

    @abstractmethod
    def load(self, folder: Path, device: str, dtype: str | None = None) -> Loaded:
        """A checkpoint's model, ready to run, and what it reads with.

        Args:
            device: as in a spec, "auto" or "cuda:1".
            dtype: in which it is to run; None: its own.

        Raises:
            SpecError: the device is not there, or the reader's files cannot be read.
            IncompleteError: a tensor is missing, unknown or of another shape.
        """

    # A study.

    def completed(self, spec: StudySpec, models: Mapping[str, OpenedModel]) -> StudySpec:
        """The spec with what such models decide where it says nothing.

        Raises:
            SpecError: a model's configuration cannot be read.
        """
        return spec

    @abstractmethod
    def check(self, spec: StudySpec, models: Mapping[str, OpenedModel]) -> Architecture:
        """Checks that the models can be merged with the first one; no weight is read.

        Args:
            models: by their keys in the spec.

        Raises:
            SpecError: naming the model's key, what differs, and the cure.
        """

    # A merge.

    def host(self, name: str, device: str) -> Host:
        """The host of this name, in memory.

        Args:
            device: where it runs, "cpu" or "cuda:1".
        """
        raise NotImplementedError(f"a {self.name} is merged whole")

    def reader_of_whole(
        self, host: OpenedModel, config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase"
    ) -> Reader:
        """What a host with a merged part reads with, before any weight is read.

        Args:
            host: the host.
            config: of a model whose configuration the merged part has.
            tokenizer: of the merged part.

        Raises:
            SpecError: the tokenizer does not fit the host.
        """
        raise NotImplementedError(f"a {self.name} is merged whole")

    def whole_stream(self, host: str, merged: Stream) -> Stream:
        """The whole model: a host with a merged part.

        Args:
            host: the host's name.
            merged: the merged part, which is passed on.

        Raises:
            SpecError: the host cannot be had.
        """
        raise NotImplementedError(f"a {self.name} is merged whole")

    def fused(self, merged: Stream, host: str, after: Fused) -> Stream:
        """A merged part into which a LoRA is fused.

        Args:
            host: the host's name.

        Raises:
            CandidateError: once a tensor is asked for: the LoRA does not fit.
        """
        raise NotImplementedError(f"nothing is fused into a {self.name}")

    def write(self, host: str | None, merged: Stream, folder: Path) -> str:
        """Writes a merge into an empty folder, in its host if it has one; returns its digest.

        Raises:
            CandidateError: it cannot be made, or a weight is NaN or infinite.
            OSError: a file cannot be read or written.
        """
        return write_stream(merged if host is None else self.whole_stream(host, merged), folder)

    def for_mergekit(self, recipe: MergeRecipe, locate: Callable[[str], str]) -> MergeRecipe:
        """The recipe as mergekit's own program for such models reads it.

        Args:
            locate: gives the merged part of a model as mergekit finds it.
        """
        return recipe.located(locate)

    def why_mergekit_differs(self, recipe: MergeRecipe) -> list[str]:
        """Why that program does not make the same of a recipe, beside what plans tell."""
        return []

    def check_single_file(self, host: str | None) -> None:
        """Refuses a merge that is not written as one file in the layout of a model's authors.

        Raises:
            SpecError: saying why.
        """
        raise SpecError(
            f"--single-file: a {self.name} is not written so, only pipelines of Stable Diffusion "
            "are; leave it out"
        )

    def write_single_file(self, folder: Path, file: Path) -> str:
        """Writes a written merge as one file, too; says what was checked.

        Raises:
            SpecError, IncompleteError: the file does not hold the model.
            OSError: a file cannot be read or written.
        """
        raise NotImplementedError(f"a {self.name} is not written as one file")

    @abstractmethod
    def write_for_others(self, folder: Path) -> None:
        """Changes a written checkpoint, where needed, so that other programs read it.

        Raises:
            OSError: a file cannot be read or written.
        """
