"""vLLM itself: one model in this process, whose weights are replaced by streams of tensors.

All that is taken of vLLM is in this module, `installed_vllm`, `beside` and `grouped`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from evomerge_optuna.devices import torch_device
from evomerge_optuna.engines.beside import AdapterRoom, Beside
from evomerge_optuna.engines.handover import remove_leftovers, written
from evomerge_optuna.engines.installed_vllm import default_arguments, installed_vllm
from evomerge_optuna.engines.spread import device_ids, spread
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import kind_and_message
from evomerge_optuna.models.digest import is_finite
from evomerge_optuna.models.layout import layout_of, meta_model
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.quiet import quiet
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig
    from vllm import RequestOutput, SamplingParams
    from vllm.lora.request import LoRARequest

    Adapters = Sequence[LoRARequest | None]  # of each text its own, or all None

# Of a configuration, what does not change the network.
_NOT_THE_NETWORK = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}


@dataclass(frozen=True)
class Network:
    """A model but for its weights: what an engine of vLLM is started for.

    Attributes:
        config: of transformers.
        dtype: in which it runs, as `float32`.
    """

    config: "PretrainedConfig"
    dtype: str

    def key(self) -> str:
        """Networks of one key can take each other's place in one engine."""
        content = {k: v for k, v in self.config.to_dict().items() if k not in _NOT_THE_NETWORK}
        return json.dumps([content, self.dtype], sort_keys=True, default=str)


class LiveModel:
    """A model in vLLM. It starts without weights: call `put_in` first.

    Args:
        network: of the model.
        spec: names the arguments and the largest batch.
        room: for adapters; None: it has none.

    Raises:
        SpecError: vLLM cannot run the model.
    """

    def __init__(
        self, network: Network, spec: EvaluationSpec, room: AdapterRoom | None = None
    ) -> None:
        vllm = installed_vllm()
        for_adapters = {} if room is None else room.prepare()
        self.turn = 0  # counts what was put in
        self.is_closed = False
        self._asked = 0  # texts, in all
        self._tied = {of: name for name, of in layout_of(network.config).tied.items()}
        self._is_spread = spread(spec) != 1
        whole = meta_model(network.config, "config.json")
        self._size = 4 * sum(one.numel() for one in whole.parameters())  # bytes at most
        remove_leftovers()
        try:
            with quiet(), TemporaryDirectory() as folder:
                network.config.save_pretrained(folder)
                self._llm = vllm.LLM(
                    model=folder,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    dtype=network.dtype,
                    max_num_seqs=spec.batch_size,
                    generation_config="vllm",
                    device_ids=device_ids(spec),
                    **for_adapters,
                    **default_arguments() | spec.engine_args,
                )
        except Exception as error:  # what it cannot run, vLLM says in many ways
            _clean_up()
            raise SpecError(
                f"evaluation.engine: vLLM does not start: {kind_and_message(error)}"
            ) from error
        self._beside = None if room is None else Beside(self._llm.llm_engine, room)
        self._modules = self._llm.apply_model(_module_names)[0]
        if self._is_spread:  # which read files, and by the format of the start none
            as_files = {"load_config": {"load_format": "safetensors"}}
            self._llm.collective_rpc("update_config", args=(as_files,))

    @property
    def positions(self) -> int:
        """How many tokens a text may have."""
        return int(self._llm.llm_engine.model_config.max_model_len)

    def put_in(self, tensors: Iterable[NamedTensor]) -> None:
        """Makes these the model's weights; names are those of a checkpoint.

        Raises:
            Exception: what the stream raises; the model is closed then.
        """
        self.turn += 1
        if self._beside is not None:
            self._beside.forget()
        stream = self._with_tied(tensors)
        with self._closed_on_error():
            self._llm.apply_model(_forget_what_is_not_finite)
            if not self._is_spread:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": stream})
            else:
                with written(stream, self._size) as folder:
                    path = {"weights_path": str(folder)}
                    self._llm.collective_rpc("reload_weights", kwargs=path)
            self._llm.reset_prefix_cache()

    def put_beside(
        self, tensors: "Mapping[str, torch.Tensor]", settings: Mapping[str, Any]
    ) -> "LoRARequest":
        """Takes an adapter beside those that are there; see `Beside.put`."""
        assert self._beside is not None
        adapter = self._beside.put(tensors, settings)
        self._llm.apply_model(_forget_what_is_not_finite)
        self._llm.reset_prefix_cache()
        return adapter

    def has(self, adapters: "Adapters") -> bool:
        """Are these adapters still there?"""
        return all(
            one is None or (self._beside is not None and one in self._beside) for one in adapters
        )

    @property
    def is_finite(self) -> bool:
        """Has no text left NaN or infinities in the cache, which others of its batch would read?"""
        return all(self._llm.apply_model(_is_cache_finite))

    def _with_tied(self, tensors: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
        """The tensors, and each that is tied to another under its own name, too.

        Where vLLM has made a form of its own of the head, it keeps the old one otherwise. In its
        Gemma 2 the embeddings are the head, which has no name of its own.
        """
        tied = set(self._tied.values())
        for name, tensor in tensors:
            if name not in tied:
                yield name, tensor
            twin = self._tied.get(name)
            if twin is not None and twin.removesuffix(".weight") in self._modules:
                yield twin, tensor

    def continuations(
        self,
        prompts: Sequence[list[int]],
        adapters: "Adapters",
        max_new_tokens: int,
        ends: Iterable[int],
        has_ended: Callable[[list[int]], bool],
        on_pass: Callable[[], None],
    ) -> list[list[int]]:
        """The prompts' greedy continuations, token ids both.

        Args:
            prompts: of one token or more each.
            adapters: of each prompt.
            ends: ids that end any text.
            has_ended: is this continuation complete? Asked after each of its tokens.
            on_pass: is called before each pass of the model.
        """
        params = _params(max_tokens=max_new_tokens, stop_token_ids=sorted(ends))
        requests = [(prompt, params, own) for prompt, own in zip(prompts, adapters, strict=True)]
        found = self._run(requests, has_ended, on_pass)
        return [list(output.outputs[0].token_ids) for output in found]

    def log_probabilities(
        self,
        texts: Sequence[tuple[list[int], int]],
        adapters: "Adapters",
        on_pass: Callable[[], None],
    ) -> list[list[tuple[float, int]]]:
        """The log p(token | tokens before), in nats, of each text's tokens behind its first ones.

        With each its rank among all tokens in its place, from 1.

        Args:
            texts: each the token ids of a text, and how many of them are given: one or more.
            adapters: of each text.
        """
        # The last token is the one that is generated, so that a text may have all positions.
        requests = [
            (
                tokens[:-1],
                _params(
                    max_tokens=1,
                    allowed_token_ids=tokens[-1:],
                    logprobs=0,
                    # Without them, a prompt that others begin with is run once.
                    prompt_logprobs=0 if given < len(tokens) - 1 else None,
                ),
                own,
            )
            for (tokens, given), own in zip(texts, adapters, strict=True)
            if given < len(tokens)
        ]
        found = iter(self._run(requests, lambda _: False, on_pass))
        return [
            _behind(given, tokens, next(found)) if given < len(tokens) else []
            for tokens, given in texts
        ]

    def close(self) -> None:
        """Gives its memory back."""
        if self.is_closed:
            return
        self.is_closed = True
        with suppress(Exception):  # it may be what has failed
            self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        _clean_up()

    def _run(
        self,
        requests: "Sequence[tuple[list[int], SamplingParams, LoRARequest | None]]",
        has_ended: Callable[[list[int]], bool],
        on_pass: Callable[[], None],
    ) -> "list[RequestOutput]":
        """What vLLM makes of the requests, each of them to its end."""
        engine = self._llm.llm_engine
        first = self._asked
        self._asked += len(requests)
        done: dict[int, RequestOutput] = {}
        with self._closed_on_error():
            for number, (tokens, params, adapter) in enumerate(requests, start=first):
                prompt = {"prompt_token_ids": tokens}
                engine.add_request(str(number), prompt, params, lora_request=adapter)
            while engine.has_unfinished_requests():
                on_pass()
                for output in engine.step():
                    if output.finished:
                        done[int(output.request_id)] = output
                    elif has_ended(list(output.outputs[0].token_ids)):
                        done[int(output.request_id)] = output
                        engine.abort_request([output.request_id])
        return [done[number] for number in range(first, self._asked)]

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """An engine that has failed in the midst of something is not asked again."""
        try:
            yield
        except BaseException:
            self.close()
            raise


_live: tuple[str, LiveModel] | None = None  # and the key of what it was started for


def live_model(
    network: Network, spec: EvaluationSpec, room: AdapterRoom | None = None
) -> LiveModel:
    """The model in vLLM of this process: started if there is none of this network, else kept.

    There is one at a time, since each takes a large part of the memory.

    Raises:
        SpecError: vLLM cannot run the model.
    """
    global _live
    device, args = torch_device(spec.device), spec.engine_args
    key = json.dumps([network.key(), device, spec.batch_size, args, repr(room)], default=str)
    if _live is not None and _live[0] == key and not _live[1].is_closed:
        return _live[1]
    close()
    model = LiveModel(network, spec, room)
    _live = key, model
    return model


def close() -> None:
    """Gives back the memory of this process's vLLM."""
    global _live
    if _live is not None:
        _live[1].close()
        _live = None


def _params(**given: Any) -> "SamplingParams":
    from vllm import SamplingParams

    return SamplingParams(temperature=0, ignore_eos=True, detokenize=False, **given)


def _behind(given: int, tokens: list[int], output: "RequestOutput") -> list[tuple[float, int]]:
    """As `log_probabilities`, of a text's tokens behind the given ones; the last was generated."""
    prompt, (last,) = output.prompt_logprobs or [], output.outputs[0].logprobs
    found = [*prompt[given:], last]
    wanted = tokens[-len(found) :]
    own = [values[token] for token, values in zip(wanted, found, strict=True)]
    return [(one.logprob, one.rank) for one in own]


def _module_names(model: Any) -> set[str]:
    return {name for name, _ in model.named_modules()}


def _forget_what_is_not_finite(model: Any) -> None:
    """Empties the cache of keys and values if a model left NaN or infinities in it.

    Places that are masked count nothing, unless what is there is NaN: zero times NaN is NaN. What
    is not finite in any layer's cache makes that of the last layer so.
    """
    if not _is_cache_finite(model):
        for cache in _caches(model):
            cache.zero_()


def _is_cache_finite(model: Any) -> bool:
    return all(map(is_finite, _caches(model)[-1:]))


def _caches(model: Any) -> list[Any]:
    return [layer.kv_cache for layer in model.modules() if hasattr(layer, "kv_cache")]


def _clean_up() -> None:
    with suppress(Exception), quiet():
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
