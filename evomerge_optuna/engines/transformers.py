"""The engine of transformers: a model in this process, which torch runs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.utils.rnn import pad_sequence

from evomerge_optuna.engines import likelihoods
from evomerge_optuna.engines.base import Greedy, Likelihood, RawModel
from evomerge_optuna.engines.batching import longest_first
from evomerge_optuna.engines.costs import model_costs
from evomerge_optuna.engines.decoding import greedy, is_decodable
from evomerge_optuna.engines.encoding import encode_pairs, encode_texts
from evomerge_optuna.engines.endings import Ends
from evomerge_optuna.engines.images import open_image
from evomerge_optuna.engines.lengths import fitted, room
from evomerge_optuna.engines.library import generate_by_library
from evomerge_optuna.engines.stops import Text
from evomerge_optuna.families import load_checkpoint
from evomerge_optuna.models.adapters import ADAPTER_CONFIG
from evomerge_optuna.models.ends import ends_of_model
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import Cut, EvaluationSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersEngine:
    """A model of transformers that answers; see `TextEngine` for what it is asked.

    Batches are of like lengths; they are halved where they do not fit in memory. See `greedy` for
    how exact a batch is; architectures that are not for it (`is_decodable`), and images, are run by
    `model.generate`.

    Args:
        model: in evaluation mode, on its device.
        batch_size: how many prompts are run at a time, at most.
    """

    def __init__(self, model: "PreTrainedModel", reader: Reader, batch_size: int) -> None:
        self._model = model
        self._reader = reader
        self._batch_size = batch_size

    @property
    def reader(self) -> Reader:
        return self._reader

    def generate(
        self, prompts: Sequence[str], how: Greedy, images: Sequence[bytes] | None = None
    ) -> list[Text | None]:
        eos = ends_of_model(self._model)
        ends = Ends(self._reader.tokenizer, eos, prompts, how.stop, how.thinking)
        if images is None:
            found = self._continued(prompts, how, ends)
        else:
            found = self._continued_about(prompts, images, how, ends)
        return [ends.text(tokens) for tokens in found]

    def log_likelihoods(
        self, pairs: Sequence[tuple[str, str]], too_long: Cut | None = None
    ) -> list[float]:
        encoded = encode_pairs(self._reader, pairs, too_long)
        return [found.total for found in self.likelihoods(encoded)]

    def likelihoods(self, texts: Sequence[tuple[list[int], int]]) -> list[Likelihood]:
        return likelihoods.likelihoods(self._model, texts, self._batch_size)

    def negative_log_likelihoods(
        self, texts: Sequence[str], too_long: Cut | None = None
    ) -> list[tuple[float, int]]:
        encoded = encode_texts(self._reader, texts, 0, too_long)
        return likelihoods.negative_log_likelihoods(self._model, encoded, self._batch_size)

    def costs(self) -> dict[str, float]:
        return model_costs(self._model)

    @property
    def has_raw(self) -> bool:
        return True

    def raw(self, who: str) -> RawModel:
        return RawModel(self._model, self._reader.tokenizer, self._batch_size)

    @contextmanager
    def counting(self, on_pass: Callable[[], None]) -> Iterator[None]:
        handle = self._model.register_forward_pre_hook(lambda *_: on_pass())
        try:
            yield
        finally:
            handle.remove()

    def close(self) -> None:
        """Does nothing: the model's memory is free once nothing refers to it."""

    def _continued(self, prompts: Sequence[str], how: Greedy, ends: Ends) -> list[list[int]]:
        """The token ids that the model adds to each prompt."""
        added, device = how.max_new_tokens, self._model.device
        encoded = encode_texts(self._reader, prompts, added, how.too_long)
        longest = max(map(len, encoded), default=0) + added
        if is_decodable(self._model, longest) and all(encoded):
            return greedy(self._model, encoded, added, self._batch_size, ends.reached)

        def inputs(places: list[int]) -> dict[str, torch.Tensor]:
            rows = [torch.tensor(encoded[place], dtype=torch.long) for place in places]
            ids = pad_sequence(rows, batch_first=True, padding_side="left").to(device)
            lengths = torch.tensor([len(row) for row in rows], device=device)
            columns = torch.arange(ids.shape[1], device=device)
            mask = (columns >= ids.shape[1] - lengths[:, None]).long()
            return {"input_ids": ids, "attention_mask": mask}

        order = longest_first(encoded)
        return generate_by_library(self._model, order, inputs, added, self._batch_size, ends)

    def _continued_about(
        self, prompts: Sequence[str], images: Sequence[bytes], how: Greedy, ends: Ends
    ) -> list[list[int]]:
        """The token ids that the model adds to each prompt about an image."""
        # A chat template may have written the first token, which most tokenizers would add again.
        bos = self._reader.tokenizer.bos_token
        begun = bool(bos) and any(prompt.startswith(bos) for prompt in prompts)
        left = room(self._reader.positions, how.max_new_tokens)

        def inputs(places: list[int]) -> dict[str, torch.Tensor]:
            batch = self._reader.inputs(
                [prompts[place] for place in places],
                [open_image(images[place]) for place in places],
                begun,
            )
            # As long as the longest of them, which cannot be cut: its image may stand anywhere.
            fitted(batch["input_ids"][0].tolist(), left, None, None)
            return dict(batch.to(self._model.device, self._model.dtype))

        order = longest_first(prompts)
        return generate_by_library(
            self._model, order, inputs, how.max_new_tokens, self._batch_size, ends
        )


def load_engine(folder: Path, spec: EvaluationSpec) -> TransformersEngine:
    """A checkpoint, or an adapter on its base; see `EngineKind` for what it raises."""
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        from evomerge_optuna.merging.adapters.placed import load_with_adapter

        model, reader = load_with_adapter(folder, spec.device, spec.dtype)
    else:
        model, reader = load_checkpoint(folder, spec.device, spec.dtype)
    return TransformersEngine(model, reader, spec.batch_size)
