"""Adapters beside a model in vLLM, which is asked for several of them in one batch.

vLLM reads an adapter once and knows it by its number, whatever lies at its path later; and its
cache of prompts goes by name and path. So each adapter has a number, a name and a folder that no
other had. It never removes one by itself here, for it would take the one that was used the longest
time ago, which may still be wanted.

Where the head may have an adapter, vLLM 0.32 finds the likelihoods of a prompt's tokens with the
adapters of other texts, or fails. So it is told which modules have adapters, and the head has none.

On the CPU, vLLM gives texts without an adapter the last one that it has if texts in the same batch
have adapters. So a text either has an adapter, or none in its batch has.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any, get_args

from evomerge_optuna.engines.handover import folder_in_memory
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line
from evomerge_optuna.models.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS

if TYPE_CHECKING:
    import torch
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.llm_engine import LLMEngine

_number = count(1000)  # vLLM warms up with the first few numbers


@dataclass(frozen=True)
class AdapterRoom:
    """Room for adapters beside a model, which vLLM takes when it starts.

    Attributes:
        count: of the adapters.
        rank: of the largest one.
        modules: that any of them changes, by the last part of their names.
    """

    count: int
    rank: int
    modules: tuple[str, ...]

    def beside(self, rank: int, modules: Iterable[str]) -> "AdapterRoom":
        """With room for an adapter of this rank, which changes these modules, too."""
        names = {module.rpartition(".")[2] for module in modules}
        return replace(
            self, rank=max(self.rank, rank), modules=tuple(sorted({*self.modules, *names}))
        )

    def prepare(self) -> dict[str, Any]:
        """What vLLM is started with, at once.

        Raises:
            SpecError: it takes no adapters of such a rank.
        """
        from vllm.config.lora import MaxLoRARanks

        from evomerge_optuna.engines.grouped import group_adapters_on_cpu

        group_adapters_on_cpu()
        ranks = sorted(get_args(MaxLoRARanks))
        fits = [rank for rank in ranks if rank >= self.rank]
        if not fits:
            raise SpecError(
                f"evaluation.engine: an adapter of rank {self.rank}, and vllm takes {ranks[-1]} at "
                f"most; write merge: {{max_rank: {ranks[-1]}}}, or engine: transformers"
            )
        return {
            "enable_lora": True,
            "max_loras": self.count,
            "max_cpu_loras": self.count,
            "max_lora_rank": fits[0],
            "lora_target_modules": list(self.modules),
        }


class Beside:
    """The adapters that are beside a running model: at most so many, of which the oldest goes."""

    def __init__(self, engine: "LLMEngine", room: AdapterRoom) -> None:
        self._engine = engine
        self._room = room
        self._there: list[LoRARequest] = []

    def __contains__(self, adapter: "LoRARequest") -> bool:
        return adapter in self._there

    def forget(self) -> None:
        """None is there any more: vLLM forgets them when it is given other weights."""
        self._there.clear()

    def put(
        self, tensors: "Mapping[str, torch.Tensor]", settings: Mapping[str, Any]
    ) -> "LoRARequest":
        """Takes an adapter; where there is no room, in the place of the oldest.

        Args:
            tensors: as peft names them in its file.
            settings: the content of its configuration file.

        Raises:
            SpecError: vLLM does not take such adapters.
            OSError: a file cannot be written.
        """
        from safetensors.torch import save_file
        from vllm.lora.request import LoRARequest

        size = sum(tensor.nbytes for tensor in tensors.values())
        if len(self._there) == self._room.count:
            self._engine.remove_lora(self._there.pop(0).lora_int_id)
        number = next(_number)
        with folder_in_memory(size) as folder:
            save_file(dict(tensors), folder / ADAPTER_WEIGHTS)
            (folder / ADAPTER_CONFIG).write_text(json.dumps(settings), encoding="utf-8")
            adapter = LoRARequest(f"candidate-{number}", number, str(folder))
            try:
                self._engine.add_lora(adapter)
            except ValueError as error:
                raise SpecError(
                    f"evaluation.engine: vllm does not take such adapters: {one_line(error, 200)}; "
                    "write engine: transformers"
                ) from error
        self._there.append(adapter)
        return adapter
