"""Vision-language models: their text part is merged, the rest is kept as it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from evomerge_optuna.devices import torch_device
from evomerge_optuna.errors import SpecError
from evomerge_optuna.families.base import Host, Loaded
from evomerge_optuna.families.causal_lm import CausalLM
from evomerge_optuna.families.vision_language.checkpoint import (
    missing_tokens,
    processor_of_whole,
)
from evomerge_optuna.families.vision_language.stream import WholeStream
from evomerge_optuna.families.vision_language.text_part import (
    VISION_MODELS,
    is_text,
    text_config,
    text_folder,
)
from evomerge_optuna.models.headers import Header
from evomerge_optuna.models.loading import complete_model
from evomerge_optuna.models.older_form import write_older_form
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.positions import positions
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.models.stream import Stream
from evomerge_optuna.spec import MergeSearchSpec, StudySpec
from evomerge_optuna.spec.engines import Need

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


class VisionLanguage(CausalLM):
    """Vision-language models. In a study text models may be merged with their text parts."""

    name: ClassVar[str] = "vision-language model"
    kinds: ClassVar[tuple[str, ...]] = VISION_MODELS
    merged_part: ClassVar[str] = "text part"
    kept_part: ClassVar[str] = "vision tower and projector"
    needs: ClassVar[Need | None] = "sight"
    pipeline_tag: ClassVar[str] = "image-text-to-text"

    def merged_config(self, model: OpenedModel) -> "PretrainedConfig":
        if self._is_one(model) and "+" in model.name:
            raise SpecError(
                f"{model.key}: {model.name}: an adapter is merged into a text model only; merge it "
                "into this vision-language model yourself, and name the checkpoint"
            )
        return text_config(model.config, model.key)

    def merged_folder(self, folder: Path, components: Sequence[str] = ()) -> Path:
        return text_folder(folder)

    def merged_headers(
        self, model: OpenedModel, components: Sequence[str] = ()
    ) -> Mapping[str, Header]:
        found = super().merged_headers(model)
        if not self._is_one(model) or model.headers is None:
            return found
        return {name: header for name, header in found.items() if is_text(name)}

    def kept_size(self, model: OpenedModel, components: Sequence[str] = ()) -> int:
        found = model.headers or {}
        return sum(h.count * h.itemsize for name, h in found.items() if not is_text(name))

    def check_complete(self, model: OpenedModel, components: Sequence[str] = ()) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        for folder, kind in (
            (model.folder, AutoModelForImageTextToText),
            (text_folder(model.folder), AutoModelForCausalLM),
        ):
            complete_model(kind, folder, device_map="meta")  # reads no weight

    def reader(self, model: OpenedModel) -> Reader:
        processor = model.processor  # whose tokenizer need not be the one that AutoTokenizer makes
        return Reader(processor.tokenizer, positions(model.config), processor)

    def load(self, folder: Path, device: str, dtype: str | None = None) -> Loaded:
        from transformers import AutoModelForImageTextToText

        model = complete_model(AutoModelForImageTextToText, folder, dtype=dtype or "auto")
        processor = OpenedModel(str(folder)).processor
        reader = Reader(processor.tokenizer, positions(model.config), processor)
        return model.to(torch_device(device)).eval(), reader

    def whose_configuration(self, spec: StudySpec, first: str) -> str:
        if spec.vision is None:  # the merge of another study has it
            return super().whose_configuration(spec, first)
        key = spec.vision if spec.vision in spec.model_ids() else f"models.{spec.vision}"
        return f"that of {key}, whose vision they keep"

    def check_host(
        self,
        spec: StudySpec,
        models: Mapping[str, OpenedModel],
        tokenizer: "PreTrainedTokenizerBase",
    ) -> None:
        """Checks that the token that stands for images is a token of the merge."""
        key = spec.host_key
        assert key is not None
        host, first = models[key], next(iter(models))
        _ = host.processor  # can be read
        if spec.tokenizer_source == "union":
            return
        if missing := missing_tokens(host.config.to_dict(), host.tokenizer, tokenizer):
            cure = (
                "set merge.tokenizer_source to union and the merged model has it"
                if isinstance(spec, MergeSearchSpec)
                else "name the vision-language model first"
            )
            raise SpecError(
                f"{key}: its token {missing[0]}, which stands for images, is none of {first}; "
                + cure
            )

    def host(self, name: str, device: str) -> Host:
        from evomerge_optuna.families.vision_language.in_memory import HostInMemory

        return HostInMemory(name, device)

    def reader_of_whole(
        self, host: OpenedModel, config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase"
    ) -> Reader:
        processor = processor_of_whole(host, text_config(config, host.name), tokenizer)
        return Reader(processor.tokenizer, positions(config), processor)

    def whole_stream(self, host: str, merged: Stream) -> Stream:
        return WholeStream(host, merged)

    def write_for_others(self, folder: Path) -> None:
        write_older_form(folder)  # its tensors have the names that the host's files have

    def _is_one(self, model: OpenedModel) -> bool:
        return model.config.model_type in self.kinds
