"""A model in memory as lm-evaluation-harness takes it; one that thinks is heard out."""

import copy
from collections.abc import Sequence

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import StoppingCriteria, StoppingCriteriaList

from evomerge_optuna.engines.base import RawModel
from evomerge_optuna.engines.endings import Ends
from evomerge_optuna.engines.thinking import thinking_of
from evomerge_optuna.models.end_of_text import without_end
from evomerge_optuna.models.ends import ends_of_model
from evomerge_optuna.spec import LMEvalTask

_NO_ANSWER = "\0"  # among what is generated: thinking had no end


class HarnessModel(HFLM):  # type: ignore[misc]
    """The harness's own model, but for three things.

    Nothing stands behind a prompt. Stop strings do not stop a model that thinks, nor is what it
    thinks an answer; `cut_off` are the documents, counted from 0, on which it came to no end. And
    options are asked for when a thinking that the chat template has begun is over.
    """

    def __init__(self, raw: RawModel, task: LMEvalTask) -> None:
        tokenizer = without_end(raw.tokenizer)
        if tokenizer.pad_token is None:
            tokenizer = copy.deepcopy(tokenizer)  # which the harness gives one
        super().__init__(
            pretrained=raw.model,
            tokenizer=tokenizer,
            batch_size=raw.batch_size,
            chat_template_args=dict(task.chat_args),
        )
        self._end_of_thinking = task.thinking
        self._thinking = thinking_of(tokenizer, task.thinking)
        self._ends: Ends | None = None  # of the prompts that are continued
        self.cut_off: set[int] = set()

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers to requests; '' where thinking had no end."""
        found: list[str] = super().generate_until(requests, disable_tqdm)
        self._ends = None
        self.cut_off |= {
            request.doc_id
            for request, text in zip(requests, found, strict=True)
            if text == _NO_ANSWER
        }
        return ["" if text == _NO_ANSWER else text for text in found]

    def tok_decode(self, tokens: object, skip_special_tokens: bool = True) -> str:
        """The text of tokens; of those generated the answer alone."""
        if self._ends is None or not isinstance(tokens, list):
            return str(super().tok_decode(tokens, skip_special_tokens))
        answer = self._ends.answer(tokens)
        if answer is None:
            return _NO_ANSWER
        rest, own = answer
        return (rest + str(super().tok_decode(own, skip_special_tokens))).lstrip()

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **options: object
    ) -> torch.Tensor:
        if self._thinking is None:
            plain: torch.Tensor = super()._model_generate(context, max_length, stop, **options)
            return plain
        prompts = self.tokenizer.batch_decode(context)
        eos = self.tokenizer.decode(self.eot_token_id)
        own = [string for string in stop if string != eos]
        ids = ends_of_model(self.model)
        self._ends = Ends(self.tokenizer, ids, prompts, own, self._end_of_thinking)
        criterion = _Ended(self._ends, context.shape[1], self.eot_token_id)
        options = _sampling(options) | {"stopping_criteria": StoppingCriteriaList([criterion])}
        heard: torch.Tensor = self.model.generate(
            input_ids=context,
            max_length=max_length,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **options,
        )
        return heard

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self._thinking is not None:
            context = self._thinking.ended(context)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair


class _Ended(StoppingCriteria):  # type: ignore[misc]
    """Which rows of a batch are complete."""

    def __init__(self, ends: Ends, begin: int, eos: int) -> None:
        self._ends, self._begin, self._eos = ends, begin, eos

    def __call__(self, input_ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        rows = input_ids[:, self._begin :].tolist()
        ended = [row[-1] == self._eos or self._ends.reached(row) for row in rows]
        return torch.tensor(ended, device=input_ids.device)


def _sampling(options: dict[str, object]) -> dict[str, object]:
    """Greedy where the task names no temperature or one of zero, as the harness has it."""
    temperature = options.get("temperature", 0.0)
    if temperature == 0.0 and not options.get("do_sample"):
        rest = {name: value for name, value in options.items() if name != "temperature"}
        return rest | {"do_sample": False}
    return options | {"temperature": temperature}
