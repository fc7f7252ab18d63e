"""mergekit's own plan of a merge: which tensor is made how, from which, and in which order."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mergekit.architecture import ModelArchitecture
from mergekit.common import ModelReference, dtype_from_name
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor, Task
from mergekit.io.tasks import SaveTensor
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask
from mergekit.options import MergeOptions
from mergekit.tokenizer import BuildTokenizer
from transformers import AutoTokenizer

from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.explain import first_line
from evomerge_optuna.families import merged_folder
from evomerge_optuna.merging import registry  # noqa: F401  (for methods that are not mergekit's)
from evomerge_optuna.merging.architecture import left_out_by_mergekit, merge_architecture
from evomerge_optuna.merging.mergekit_internals import (
    close_model_files,
    copy_tokenizer,
    merged_config,
    plan_tasks,
    run_tasks,
    scheduled,
    set_chat_template,
    set_vocabulary_size,
)
from evomerge_optuna.merging.vocabulary import union_tokenizer
from evomerge_optuna.models.ends import write_generation_config
from evomerge_optuna.models.layout import is_tied
from evomerge_optuna.models.pipeline_part import PART
from evomerge_optuna.models.shards import NamedTensor, system_error, weight_files
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.merge import MergeRecipe

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TensorPlan:
    """One tensor of the merged checkpoint, and mergekit's task that computes it."""

    name: str
    task: ExecuteMergeMethodTask
    dtype: "torch.dtype | None"  # of the checkpoint; None: as computed
    optional: bool


@dataclass(frozen=True)
class MergePlan:
    """All that mergekit makes of a recipe, before any tensor is read."""

    tensors: dict[str, TensorPlan]
    configuration: MergeConfiguration
    architecture: ModelArchitecture
    config: "PretrainedConfig"  # of the merged model
    tokenizer_task: BuildTokenizer | None
    options: MergeOptions
    tasks: list[Task]
    is_untied: bool  # the first model's embeddings are tied, the merged model's are not

    def order(self) -> tuple[str, ...]:
        """Names of the tensors as `run_merge` takes them, on which random masks depend.

        The same for all recipes of one `structure`.
        """
        names = {id(plan.task): name for name, plan in self.tensors.items()}
        return tuple(names[id(task)] for task in scheduled(self.tasks) if id(task) in names)

    def left_out_by_mergekit(self) -> list[str]:
        """Names of tensors that plain mergekit leaves out of this merge of checkpoints."""
        if self.config.model_type == PART:
            return []
        files = _weight_files(_models(self.configuration))
        tied = bool(getattr(self.config, "tie_word_embeddings", False))
        return left_out_by_mergekit(self.config, files, tied)

    def run(self) -> Iterator[NamedTensor]:
        """The merged tensors as mergekit itself makes them, which keeps none."""
        return run_tasks(self.tasks, str(self.options.device))

    def write_files_beside_weights(self, folder: Path) -> None:
        """Writes configuration, tokenizer and generation config, as `run_merge` writes them.

        `config` gets the size of the vocabulary and the ids of the special tokens.
        """
        tokenizer = self._write_tokenizer(folder)
        first, *others = (Path(model.model.path) for model in _models(self.configuration))
        write_generation_config(folder, self.config, tokenizer, first, others)
        self.config.save_pretrained(folder)

    def _write_tokenizer(self, folder: Path) -> "PreTrainedTokenizerBase":
        if self.tokenizer_task is None:
            copy_tokenizer(self.configuration, folder, self.options)
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        ((_, built),) = Executor([self.tokenizer_task]).run(quiet=True)
        tokenizer: PreTrainedTokenizerBase = built.tokenizer
        given = self.configuration.tokenizer
        multiple = given.pad_to_multiple_of if given else None
        set_vocabulary_size(self.config, self.architecture, tokenizer, multiple)
        set_chat_template(tokenizer, self.configuration)
        tokenizer.save_pretrained(folder)
        return tokenizer


def plan_merge(recipe: MergeRecipe, device: str = "cpu") -> MergePlan:
    """mergekit's plan of a recipe; of the models only configurations and file indexes are read.

    Args:
        device: where `MergePlan.run` merges.
    """
    configuration = MergeConfiguration.model_validate(located(recipe).configuration)
    options = merge_options(recipe, device)
    models = tuple(_models(configuration))
    architecture, tied = _architecture(models, _state_of_files(models))
    config = merged_config(configuration, architecture)
    is_untied = bool(getattr(config, "tie_word_embeddings", False)) and not tied
    if not tied:
        config.tie_word_embeddings = False
    tasks = plan_tasks(configuration, architecture, options, config)
    tensors = {
        task.tensor_name: TensorPlan(
            name=task.tensor_name,
            task=task.tensor_task,
            dtype=dtype_from_name(task.dtype),
            optional=task.optional,
        )
        for task in tasks
        if isinstance(task, SaveTensor)
    }
    tokenizers = [task for task in tasks if isinstance(task, BuildTokenizer)]
    return MergePlan(
        tensors=tensors,
        configuration=configuration,
        architecture=architecture,
        config=config,
        tokenizer_task=tokenizers[0] if tokenizers else None,
        options=options,
        tasks=tasks,
        is_untied=is_untied,
    )


@lru_cache(maxsize=8)
def _architecture(
    models: tuple[ModelReference, ...], files: tuple[tuple[int, int], ...]
) -> tuple[ModelArchitecture, bool]:
    """The architecture of a merge, and whether its head is its embeddings.

    Args:
        files: see `_state_of_files`; what is known of other files is not used.
    """
    configs = {model: model.config() for model in models}
    tied = all(is_tied(Path(model.model.path), config) for model, config in configs.items())
    return merge_architecture(list(configs.values()), _weight_files(models), tied), tied


def _state_of_files(models: Sequence[ModelReference]) -> tuple[tuple[int, int], ...]:
    """The size of each of the models' files, and when it was changed last."""
    configs = [Path(model.model.path) / "config.json" for model in models]
    states = [file.stat() for file in [*configs, *_weight_files(models)]]
    return tuple((state.st_size, state.st_mtime_ns) for state in states)


def _models(configuration: MergeConfiguration) -> list[ModelReference]:
    """All models, first the one whose configuration the merged model has."""
    models = configuration.referenced_models()
    return list(dict.fromkeys([configuration.base_model or models[0], *models]))


def _weight_files(models: Iterable[ModelReference]) -> list[Path]:
    return [file for model in models for file in weight_files(Path(model.model.path))]


def structure(recipe: MergeRecipe) -> str:
    """What of a recipe decides its plan but for the parameters: equal text means equal inputs."""

    def without_parameters(part: object) -> object:
        if isinstance(part, list):
            return [without_parameters(item) for item in part]
        if isinstance(part, dict):
            return {k: without_parameters(v) for k, v in part.items() if k != "parameters"}
        return part

    parts = [without_parameters(recipe.configuration), recipe.seed, *recipe.components]
    return json.dumps(parts, sort_keys=True)


def located(recipe: MergeRecipe) -> MergeRecipe:
    """The recipe as mergekit reads it: a local folder for every text part and a union tokenizer."""
    found = recipe.located(lambda model: str(merged_folder(model, recipe.components)))
    if found.configuration.get("tokenizer_source") != "union":
        return found
    base = found.configuration.get("base_model")
    folders = dict.fromkeys([*([base] if base else []), *found.models()])
    union = str(union_tokenizer([Path(folder) for folder in folders]))
    return found.model_copy(
        update={"configuration": found.configuration | {"tokenizer_source": union}}
    )


def merge_options(recipe: MergeRecipe, device: str = "cpu") -> MergeOptions:
    """How mergekit runs: the recipe's seed, safetensors, no remote code."""
    return MergeOptions(
        random_seed=recipe.seed,
        safe_serialization=True,
        trust_remote_code=False,
        write_model_card=False,
        copy_tokenizer=False,
        quiet=True,
        device=device,
    )


@contextmanager
def mergekit_errors(place: Path | None = None) -> Iterator[None]:
    """What goes wrong inside mergekit, in our terms; its logs and warnings are kept quiet.

    Args:
        place: where it writes, for the message of a full disk.

    Raises:
        CandidateError: mergekit refuses the recipe.
        OSError: the machine's fault: a file cannot be read or written.
    """
    try:
        with quiet(), translated_errors(place):
            yield
    finally:
        close_model_files()


@contextmanager
def translated_errors(place: Path | None = None) -> Iterator[None]:
    """As `mergekit_errors`, but nothing else: a generator may yield within it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # transformers has its own use of it
            raise
        # A failed copy names its source first, a failed write no file at all.
        name = error.filename2 or error.filename or (str(place) if place else None)
        raise OSError(error.errno, error.strerror, name) from error
    except (EvomergeError, MemoryError):
        raise
    except Exception as error:
        # safetensors reports a full disk as an error of its own.
        if refused := system_error(error, place):
            raise refused from error
        raise CandidateError(f"mergekit cannot build it: {first_line(error)}") from error
