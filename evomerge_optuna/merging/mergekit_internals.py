"""What we need of mergekit that is not its public interface, and nothing else of it.

mergekit has no public way to plan a merge and to run the plan without a folder to write to; its
own `mergekit-evolve` imports these private names, too. The test of this module names the version
in which they were read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from mergekit.architecture import ModelArchitecture
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor, Task, TaskUniverse
from mergekit.io.tasks import LoaderCache, SaveTensor
from mergekit.merge import (
    _copy_tokenizer,
    _model_out_config,
    _set_chat_template,
    _update_config_vocab,
)
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner

from evomerge_optuna.models.shards import NamedTensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def merged_config(
    configuration: MergeConfiguration, architecture: ModelArchitecture
) -> "PretrainedConfig":
    """The configuration of the merged model, but for the size of its vocabulary."""
    return _model_out_config(configuration, architecture)


def plan_tasks(
    configuration: MergeConfiguration,
    architecture: ModelArchitecture,
    options: MergeOptions,
    config: "PretrainedConfig",
) -> list[Task]:
    """The tasks of a merge: one `SaveTensor` a tensor, and a `BuildTokenizer` where one is built.

    Args:
        config: of the merged model.
    """
    LoaderCache().setup(options=options)
    tasks: list[Task] = MergePlanner(configuration, architecture, options, config).plan_to_disk("")
    MergePlanner._model_arch.cache_clear()  # it would keep the last planners alive
    return tasks


def scheduled(tasks: Sequence[Task]) -> list[Task]:
    """The tasks and those that they need, in the order in which `run_merge` executes them."""
    return [handle.task() for handle in Executor(list(tasks)).schedule.tasks]


def run_tasks(tasks: Sequence[Task], device: str) -> Iterator[NamedTensor]:
    """Executes the tasks as `run_merge` does, and yields the tensors that it would write.

    Args:
        tasks: of `plan_tasks`.
        device: where tensors are merged.
    """
    universe = TaskUniverse(tasks)
    handles = [universe.add_task(task) for task in tasks]
    (writer,) = {task.writer_task for task in tasks if isinstance(task, SaveTensor)}
    in_its_place = _Receiver()
    values = {universe.get_handle(writer): in_its_place}
    for _ in Executor(handles, math_device=device, cached_values=values).run(quiet=True):
        yield from in_its_place.take()


class _Receiver:
    """Takes tensors in the place of mergekit's `TensorWriter`."""

    def __init__(self) -> None:
        self._received: list[NamedTensor] = []

    def save_tensor(self, name: str, tensor: torch.Tensor, clone: bool = False) -> None:
        self._received.append((name, tensor))

    def finalize(self) -> None:
        """Nothing is left to be written."""

    def take(self) -> list[NamedTensor]:
        received, self._received = self._received, []
        return received


def close_model_files() -> None:
    """Closes the files that mergekit keeps open, since it would go on reading them as they were."""
    LoaderCache().flush_all()


def copy_tokenizer(configuration: MergeConfiguration, folder: Path, options: MergeOptions) -> None:
    """Copies the tokenizer of the base model, or of the first model where there is none."""
    _copy_tokenizer(configuration, str(folder), options=options)


def set_chat_template(
    tokenizer: "PreTrainedTokenizerBase", configuration: MergeConfiguration
) -> None:
    """Gives the tokenizer the chat template that the configuration names, if it names one."""
    _set_chat_template(tokenizer, configuration)


def set_vocabulary_size(
    config: "PretrainedConfig",
    architecture: ModelArchitecture,
    tokenizer: "PreTrainedTokenizerBase",
    multiple: int | None,
) -> None:
    """Writes the size of the tokenizer's vocabulary into the configuration.

    Args:
        multiple: the size is padded to a multiple of this.
    """
    _update_config_vocab(config, architecture, tokenizer, multiple)
