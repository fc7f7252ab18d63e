"""vLLM itself: one model in this process, whose weights are replaced by streams of tensors.

All that is taken of vLLM is in this module.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from evomerge_optuna.devices import memory_of, torch_device
from evomerge_optuna.engines.base import EngineMemory
from evomerge_optuna.engines.handover import remove_leftovers, written
from evomerge_optuna.engines.spread import check_spread, device_ids, spread
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import kind_and_message
from evomerge_optuna.models.digest import is_finite
from evomerge_optuna.models.layout import layout_of, meta_model
from evomerge_optuna.models.shards import NamedTensor
from evomerge_optuna.quiet import quiet
from evomerge_optuna.spec import EvaluationSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from vllm import RequestOutput, SamplingParams

# What vLLM looks at when it is imported; what the environment says stays, but for the first.
_IN_THIS_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
_VARIABLES = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # workers of one machine would bind to the same cores
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process whose threads compute may hang
}
_CACHE_ON_CPU = 2 * 2**30  # bytes of keys and values; vLLM itself would take most of the memory
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

    Raises:
        SpecError: vLLM cannot run the model.
    """

    def __init__(self, network: Network, spec: EvaluationSpec) -> None:
        vllm = _vllm()
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
                    **_defaults() | spec.engine_args,
                )
        except Exception as error:  # what it cannot run, vLLM says in many ways
            _clean_up()
            raise SpecError(
                f"evaluation.engine: vLLM does not start: {kind_and_message(error)}"
            ) from error
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
        max_new_tokens: int,
        ends: Iterable[int],
        has_ended: Callable[[list[int]], bool],
        on_pass: Callable[[], None],
    ) -> list[list[int]]:
        """The prompts' greedy continuations, token ids both.

        Args:
            prompts: of one token or more each.
            ends: ids that end any text.
            has_ended: is this continuation complete? Asked after each of its tokens.
            on_pass: is called before each pass of the model.
        """
        params = _params(max_tokens=max_new_tokens, stop_token_ids=sorted(ends))
        found = self._run([(prompt, params) for prompt in prompts], has_ended, on_pass)
        return [list(output.outputs[0].token_ids) for output in found]

    def log_probabilities(
        self, texts: Sequence[tuple[list[int], int]], on_pass: Callable[[], None]
    ) -> list[list[tuple[float, int]]]:
        """The log p(token | tokens before), in nats, of each text's tokens behind its first ones.

        With each its rank among all tokens in its place, from 1.

        Args:
            texts: each the token ids of a text, and how many of them are given: one or more.
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
            )
            for tokens, given in texts
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
        requests: "Sequence[tuple[list[int], SamplingParams]]",
        has_ended: Callable[[list[int]], bool],
        on_pass: Callable[[], None],
    ) -> "list[RequestOutput]":
        """What vLLM makes of the requests, each of them to its end."""
        engine = self._llm.llm_engine
        first = self._asked
        self._asked += len(requests)
        done: dict[int, RequestOutput] = {}
        with self._closed_on_error():
            for number, (tokens, params) in enumerate(requests, start=first):
                engine.add_request(str(number), {"prompt_token_ids": tokens}, params)
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


def live_model(network: Network, spec: EvaluationSpec) -> LiveModel:
    """The model in vLLM of this process: started if there is none of this network, else kept.

    There is one at a time, since each takes a large part of the memory.

    Raises:
        SpecError: vLLM cannot run the model.
    """
    global _live
    started_for = [network.key(), torch_device(spec.device), spec.batch_size, spec.engine_args]
    key = json.dumps(started_for, default=str)
    if _live is not None and _live[0] == key and not _live[1].is_closed:
        return _live[1]
    close()
    model = LiveModel(network, spec)
    _live = key, model
    return model


def close() -> None:
    """Gives back the memory of this process's vLLM."""
    global _live
    if _live is not None:
        _live[1].close()
        _live = None


def check_vllm(spec: EvaluationSpec) -> None:
    """Checks that vLLM is here, runs on the spec's device and knows its arguments.

    Raises:
        SpecError: it is not so.
    """
    vllm = _vllm()
    with quiet():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.platforms import current_platform

    device, own = torch_device(spec.device), current_platform.device_type
    if device.partition(":")[0] != own:
        raise SpecError(
            f"evaluation.device: the installed vLLM {vllm.__version__} runs on {own}, not on "
            f"{device}; write {own}, or engine: transformers"
        )
    unknown = sorted(spec.engine_args.keys() - EngineArgs.__dataclass_fields__.keys())
    if unknown:
        raise SpecError(
            f"evaluation.engine_args: vLLM {vllm.__version__} has no argument {unknown[0]}; "
            "remove it"
        )
    check_spread(spec)


def memory_of_vllm(spec: EvaluationSpec, _: int = 0) -> EngineMemory:
    """What vLLM takes when it starts: a part of a GPU, or so much for keys and values."""
    _vllm()
    with quiet():
        from vllm.engine.arg_utils import EngineArgs

    given = _defaults() | spec.engine_args
    if (cache := given.get("kv_cache_memory_bytes")) is not None:
        return EngineMemory(cache=int(cache))
    usual = EngineArgs.__dataclass_fields__["gpu_memory_utilization"].default
    share = float(given.get("gpu_memory_utilization", usual))
    whole = memory_of(torch_device(spec.device))[1]
    return EngineMemory(engine=int(share * whole), devices=spread(spec))


def _vllm() -> Any:
    os.environ.update(_IN_THIS_PROCESS)
    for variable, value in _VARIABLES.items():
        os.environ.setdefault(variable, value)
    try:
        with quiet():
            import vllm
    except ImportError as error:
        raise SpecError(
            f"evaluation.engine: needs vLLM ({error}); pip install 'evomerge-optuna[vllm]', or "
            "write engine: transformers"
        ) from error
    return vllm


def _defaults() -> dict[str, Any]:
    """Arguments where the spec gives none."""
    from vllm.platforms import current_platform

    # As many positions as the model has, or as there is memory for.
    common = {"max_model_len": -1, "seed": 0}
    if not current_platform.is_cpu():
        return common
    return common | {"enforce_eager": True, "kv_cache_memory_bytes": _CACHE_ON_CPU}


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
    caches = [layer.kv_cache for layer in model.modules() if hasattr(layer, "kv_cache")]
    if not all(map(is_finite, caches[-1:])):
        for cache in caches:
            cache.zero_()


def _clean_up() -> None:
    with suppress(Exception), quiet():
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
