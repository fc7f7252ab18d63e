"""lm-evaluation-harness (the extra `lm-eval`): its tasks, and models as it takes them."""

import gc
import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import lm_eval.api.metrics
import numpy as np
import torch
from jinja2 import Environment, TemplateError, meta
from lm_eval.api.model import LM
from lm_eval.api.registry import get_model, metric_registry
from lm_eval.api.task import Task
from lm_eval.evaluator import evaluate
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind

from evomerge_optuna.devices import give_back_unused
from evomerge_optuna.engines.base import RawModel, TextEngine
from evomerge_optuna.engines.batching import within_memory
from evomerge_optuna.engines.encoding import encode_pair
from evomerge_optuna.engines.lengths import Given
from evomerge_optuna.engines.thinking import thinking_of
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.answered import Stored
from evomerge_optuna.evaluation.harness_engine import MAX_GEN_TOKS, EngineModel, is_greedy
from evomerge_optuna.evaluation.harness_model import HarnessModel
from evomerge_optuna.evaluation.problem import Row
from evomerge_optuna.explain import kind_and_message
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.spec import LMEvalTask
from evomerge_optuna.spec.metrics import Better

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Makes a metric of the values of documents.
Aggregation = Callable[[list[object]], Any]

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of all that is as it should be

# As `simple_evaluate` and the harness's command line have them, so that scores are the same.
_SEED, _OTHER_SEED = 0, 1234


class HarnessTask:
    """One task of the harness with one of its metrics and filters.

    Args:
        key: the task's place in the spec, named in errors.

    Raises:
        SpecError: there is no such task, metric or filter, or the task cannot be loaded.
    """

    def __init__(self, spec: LMEvalTask, key: str) -> None:
        self._spec = spec
        self._key = key
        self._task = _load(spec, key)
        self._own_split = self._task.config.test_split
        self._shots: Any = getattr(self._task, "fewshot_cfg", None)  # of a task that is configured
        self._own_split_of_shots: str | None = getattr(self._shots, "split", None)
        self._set_shots()
        self._check_metric()

    @property
    def is_mean(self) -> bool:
        """Is the metric the mean of the documents' values?"""
        return self.aggregate is lm_eval.api.metrics.mean

    @property
    def better(self) -> Better | None:
        """Which values of the metric are better, where the task declares it."""
        is_high: bool | None = self._task.higher_is_better().get(self._spec.metric)
        return None if is_high is None else "high" if is_high else "low"

    @property
    def is_greedy(self) -> bool:
        """Are the answers those that every engine gives?"""
        return is_greedy(getattr(self._task.config, "generation_kwargs", None) or {})

    @property
    def aggregate(self) -> Aggregation:
        """Makes the metric of the documents' values."""
        found: Aggregation = self._task.aggregation()[self._spec.metric]
        return found

    def documents(self, split: str, where: str) -> Sequence[Row]:
        """All documents of a split of the task's data set; of its own where none is named.

        Raises:
            SpecError: it has no such split.
        """
        if split and split not in self._task.dataset:
            raise SpecError(
                f"{where}: {self._spec.task} has no split '{split}'; it has "
                f"{', '.join(map(str, self._task.dataset))}"
            )
        self._task.config.test_split = split or self._own_split
        if self._shots is not None:
            self._shots.split = self._split_of_shots(split)
        found: Sequence[Row] = self._task.eval_docs
        return found

    def question(self, document: Row) -> str:
        """What the document puts into the prompt; '' where the harness cannot tell."""
        asked = self._task.config.doc_to_text
        if isinstance(asked, str) and asked not in document:
            try:
                asked = meta.find_undeclared_variables(Environment().parse(asked))
            except TemplateError:
                asked = ()
            return "\n".join(str(document[name]) for name in sorted(asked) if name in document)
        text = self._task.doc_to_text(document)
        return text if isinstance(text, str) else ""

    def samples(self, engine: TextEngine, split: str, places: list[int]) -> list[Stored]:
        """What the harness logs of each of these documents, which are in ascending order.

        And whether the model was `cut_off` while it thought. A model of transformers is asked by
        the harness's own, with all its digits; any other engine answers for itself.
        """
        self.documents(split, self._key)
        if not engine.has_raw:
            return self._logged(lambda: EngineModel(engine, self._spec, self._key), places)
        raw = engine.raw(self._key)
        found: list[Stored] = []

        def run(size: int) -> None:
            found[:] = self._logged(lambda: self._lm(replace(raw, batch_size=size)), places)

        with _as_it_was(raw.model):
            within_memory(raw.batch_size, run)
        return found

    def _logged(self, make: Callable[[], LM], places: list[int]) -> list[Stored]:
        name = self._spec.task
        self._task.set_fewshot_seed(_OTHER_SEED)
        with _seeded():
            lm = make()
            results = evaluate(
                lm=lm,
                task_dict={"tasks": {name: self._task}, "groups": {}, "group_map": {}},
                samples={name: places},
                bootstrap_iters=0,
                log_samples=True,
                system_instruction=self._spec.system,
                apply_chat_template=self._spec.chat,
                fewshot_as_multiturn=self._spec.chat,
            )
        cut_off = {places[number] for number in getattr(lm, "cut_off", ())}
        return [
            {**sample, "cut_off": sample["doc_id"] in cut_off}
            for sample in results["samples"][name]
            if sample["filter"] == self._spec.filter
        ]

    def given(self, reader: Reader, split: str, places: list[int]) -> list[list[Given]]:
        """What a model with this reader is given for each of these documents.

        Nothing where the likelihood of a whole text is asked for, which the harness has it read in
        windows.
        """
        self.documents(split, self._key)
        thinking = thinking_of(reader.tokenizer, self._spec.thinking)

        def rendered(chat: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return str(
                reader.tokenizer.apply_chat_template(
                    chat,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                    **self._spec.chat_args,
                )
            )

        def given(kind: str, arguments: Sequence[Any]) -> list[Given]:
            if kind == "generate_until":
                added = normalize_gen_kwargs(arguments[1], MAX_GEN_TOKS)["max_gen_toks"]
                return [Given(reader.encode(arguments[0]), added)]
            if kind != "loglikelihood":
                return []
            prompt, option = arguments
            whole, count = encode_pair(
                reader, thinking.ended(prompt) if thinking else prompt, option
            )
            return [Given(whole[:count], len(whole) - count)]

        self._task.set_fewshot_seed(_OTHER_SEED)
        with _seeded():
            self._task.build_all_requests(
                samples=places,
                system_instruction=self._spec.system,
                apply_chat_template=self._spec.chat,
                fewshot_as_multiturn=self._spec.chat,
                chat_template=rendered if self._spec.chat else None,
            )
        found: list[list[Given]] = [[] for _ in places]
        for request in self._task.instances:
            found[request.doc_id] += given(request.request_type, request.args)
        return found

    def _lm(self, raw: RawModel) -> LM:
        if self._spec.backend is not None:
            args: dict[str, object] = {
                "pretrained": raw.model.name_or_path,
                **self._spec.backend_args,
            }
            if self._spec.chat_args:
                args["chat_template_args"] = self._spec.chat_args
            if self._spec.thinking:
                args["think_end_token"] = self._spec.thinking
            return _backend(self._spec.backend, args, raw.batch_size, str(raw.model.device))
        return HarnessModel(raw, self._spec)

    def _set_shots(self) -> None:
        # As `simple_evaluate` has it: a task that says 0 is never given shots.
        own, wanted = self._task.get_config("num_fewshot"), self._spec.num_fewshot
        if wanted is not None and own != 0:
            self._task.set_config(key="num_fewshot", value=wanted)
        elif own is None:
            self._task.set_config(key="num_fewshot", value=0)

    def _split_of_shots(self, split: str) -> str | None:
        """Where shots are drawn from: by its name, where the documents' split has been named.

        The harness gives no document itself as a shot, solved, if it knows both to be of one split.
        """
        if not split or self._own_split_of_shots or self._shots.samples is not None:
            return self._own_split_of_shots
        config = self._task.config
        found: str | None = config.training_split or config.validation_split or self._own_split
        return found

    def _check_metric(self) -> None:
        metrics, filters = list(self._task.aggregation()), [f.name for f in self._task._filters]
        for what, given, known in (
            ("metric", self._spec.metric, metrics),
            ("filter", self._spec.filter, filters),
        ):
            if given not in known:
                raise SpecError(
                    f"{self._key}.{what}: {self._spec.task} has no {what} '{given}'; "
                    f"it has {', '.join(known)}"
                )


@cache
def _manager(include_path: str | None, with_built_in: bool) -> TaskManager:
    return TaskManager(include_path=include_path, include_defaults=with_built_in)


def _load(spec: LMEvalTask, key: str) -> Task:
    manager = None
    if spec.include_path is not None:  # a folder is read at once, the thousands of built-in not
        manager = _manager(spec.include_path, False)
    if manager is None or spec.task not in manager.task_index:
        manager = _manager(spec.include_path, True)
    entry = manager.task_index.get(spec.task)
    place = f" nor in {spec.include_path}" if spec.include_path else "; name its folder as include"
    if entry is None:
        raise SpecError(f"{key}.task: '{spec.task}' is no task of lm-evaluation-harness{place}")
    if entry.kind in (Kind.GROUP, Kind.TAG):
        raise SpecError(f"{key}.task: '{spec.task}' is a group of tasks; name one of them")
    _refuse_hub_code(entry.cfg or {}, spec, key)
    try:
        loaded = manager.load([spec.task])["tasks"][spec.task]
    except Exception as error:  # of the data set, the configuration or its functions
        reason = kind_and_message(error)
        raise SpecError(f"{key}.task: {spec.task} cannot be loaded: {reason}") from error
    if getattr(loaded, "UNSAFE_CODE", False):
        raise SpecError(f"{key}.task: {spec.task} runs code that the model writes; choose another")
    if not hasattr(loaded, "dataset") or getattr(loaded, "MULTIMODAL", False):
        raise SpecError(f"{key}.task: {spec.task} is no task about texts; choose another")
    return loaded


def _refuse_hub_code(configuration: dict[str, Any], spec: LMEvalTask, key: str) -> None:
    """What is no metric of the harness it would look for, as code, on the hub."""
    for metric in configuration.get("metric_list") or []:
        name = metric.get("metric")
        unknown = isinstance(name, str) and "/" not in name and name not in metric_registry
        if metric.get("hf_evaluate") or (unknown and not configuration.get("process_results")):
            raise SpecError(
                f"{key}.task: {spec.task} takes its metric {name} as code from the hub, which is "
                "never run; choose another task"
            )


_backends: dict[tuple[str, str, int, str], LM] = {}  # the last one: two may not fit on a device


def _backend(name: str, args: dict[str, object], batch_size: int, device: str) -> LM:
    """A model of the harness that has loaded this checkpoint; kept until another is asked for."""
    wanted = (name, json.dumps(args, sort_keys=True), batch_size, device)
    if wanted not in _backends:
        _backends.clear()
        gc.collect()
        give_back_unused()
        options = {"batch_size": batch_size, "device": device}
        _backends[wanted] = get_model(name).create_from_arg_obj(args, options)
    return _backends[wanted]


@contextmanager
def _as_it_was(model: "PreTrainedModel") -> Iterator[None]:
    """Keeps the harness from tying weights anew, which are those of other models, too."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights


@contextmanager
def _seeded() -> Iterator[None]:
    """Seeds the random numbers as the harness does, and leaves them as they were."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(_SEED)
        np.random.seed(_OTHER_SEED)
        torch.manual_seed(_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
