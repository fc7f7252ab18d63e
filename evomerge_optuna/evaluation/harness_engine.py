"""Any engine as lm-evaluation-harness takes models."""

import json
from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.engines.thinking import thinking_of
from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import LMEvalTask

MAX_GEN_TOKS = 256  # of an answer, where the task says nothing; as the harness's own models have it
_POSITIONS = 2048  # of a model that tells no bound, as the harness has it

# What a task may say of its answers: all else asks for another search than the greedy one.
_GREEDY = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


def is_greedy(arguments: dict[str, Any]) -> bool:
    """Are a task's `generation_kwargs` those of greedy answers, which every engine gives?"""
    named = normalize_gen_kwargs(arguments, MAX_GEN_TOKS)
    return not named["do_sample"] and named.keys() <= _GREEDY


class EngineModel(TemplateLM):  # type: ignore[misc]
    """An engine's model: texts are read, windows cut and answers ended as by the harness's own.

    A text has no more tokens than the engine's model has positions; the harness's own takes one
    more where it shortens a text. A model that thinks is heard out, and options are asked for when
    a thinking that the chat template has begun is over; `cut_off` are the documents, counted from
    0, on which it came to no end.

    Args:
        key: the task's place in the spec, named in errors.
    """

    def __init__(self, engine: TextEngine, task: LMEvalTask, key: str) -> None:
        super().__init__()
        self._engine = engine
        self._reader = engine.reader
        self._task = task
        self._key = key
        self._thinking = thinking_of(self._reader.tokenizer, task.thinking)
        self.tokenizer = self._reader.tokenizer
        self.cut_off: set[int] = set()

    @property
    def eot_token_id(self) -> int:
        """The id that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The id before a text that nothing else is before."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    @property
    def tokenizer_name(self) -> str:
        """Names what the harness keeps between runs, which is not asked for here."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as the tokenizer's template writes it."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **self._task.chat_args,
            )
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """The ids of a text, with what the tokenizer puts before it unless told otherwise."""
        if add_special_tokens is None:
            return self._reader.encode(string)
        ids: list[int] = self.tokenizer(string, add_special_tokens=add_special_tokens)["input_ids"]
        return ids

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answers to requests; '' where thinking had no end."""
        alike: dict[str, list[int]] = {}  # places by what is asked of their answers
        for place, request in enumerate(requests):
            alike.setdefault(json.dumps(request.args[1], sort_keys=True), []).append(place)
        found = [""] * len(requests)
        for arguments, places in alike.items():
            how = self._how(json.loads(arguments))
            texts = self._engine.generate([requests[place].args[0] for place in places], how)
            for place, text in zip(places, texts, strict=True):
                if text is None:
                    self.cut_off.add(requests[place].doc_id)
                else:
                    found[place] = text.whole.lstrip() if self._thinking else text.whole
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of each whole text, in nats, in windows as long as the model reads."""
        windows = [
            [
                (None, *make_disjoint_window(window))
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(request.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self._positions - 1,
                    context_len=1,
                )
            ]
            for request in requests
        ]
        sums = iter(self._loglikelihood_tokens([one for text in windows for one in text]))
        return [sum(next(sums)[0] for _ in text) for text in windows]

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: object
    ) -> list[tuple[float, bool]]:
        texts = []
        for _name, context, continuation in requests:
            whole = (context + continuation)[-self._positions :]
            texts.append((whole, max(1, len(whole) - len(continuation))))
        return [(one.total, one.is_greedy) for one in self._engine.likelihoods(texts)]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self._thinking is not None:
            context = self._thinking.ended(context)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def _how(self, arguments: dict[str, Any]) -> Greedy:
        if not is_greedy(arguments):
            raise SpecError(
                f"{self._key}: its answers are not the most likely ones, which is all that this "
                "engine gives; write evaluation: {engine: transformers}, or remove the task"
            )
        named = normalize_gen_kwargs(arguments, MAX_GEN_TOKS)
        stop = [string for string in named["until"] if string]
        return Greedy(named["max_gen_toks"], stop, self._task.thinking, self._task.too_long)

    @property
    def _positions(self) -> int:
        return self._reader.positions or _POSITIONS
