"""The spec: what a study searches, with which models, on which tasks. Validated YAML."""

import difflib
import math
import os
import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from evomerge_optuna.errors import SpecError

MergeMethodName = Literal["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp"]
DTypeName = Literal["float32", "bfloat16", "float16"]

# Every parameter a method searches, and whether it belongs to each source model or to the merge.
SEARCHED_PARAMETERS: dict[str, tuple[str, ...]] = {
    "linear": ("weight",),
    "task_arithmetic": ("weight",),
    "ties": ("weight", "density"),
    "dare_linear": ("weight", "density"),
    "dare_ties": ("weight", "density"),
    "slerp": ("t",),
}
# What mergekit's method accepts beside the searched parameters.
MERGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": ("normalize",),
    "task_arithmetic": ("normalize", "lambda"),
    "ties": ("normalize", "int8_mask", "lambda"),
    "dare_linear": ("normalize", "lambda"),
    "dare_ties": ("normalize", "int8_mask", "lambda"),
    "slerp": (),
}
TASK_METRICS = {
    "generate": ("accuracy", "number_accuracy", "language_share"),
    "perplexity": ("perplexity",),
}
SPLITS = ("search", "dev", "test")

# Strict, for true and false are no numbers.
Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]


class Strict(BaseModel):
    """A part of the spec: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Range(Strict):
    """What a parameter may be: `[low, high]` is searched, a single number is fixed."""

    low: Number
    high: Number

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("write a number or [low, high]")
        if isinstance(value, int | float):
            return {"low": value, "high": value}
        if isinstance(value, list | tuple):
            numbers = [x for x in value if isinstance(x, int | float) and not isinstance(x, bool)]
            if len(value) != 2 or len(numbers) != 2:
                raise ValueError("write a number or two numbers, [low, high]")
            return {"low": value[0], "high": value[1]}
        if isinstance(value, dict | Range):
            return value
        raise ValueError("write a number or [low, high]")

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("both ends must be finite")
        if self.low > self.high:
            raise ValueError(
                f"the range [{self.low:g}, {self.high:g}] is empty; "
                f"write [{self.high:g}, {self.low:g}]"
            )
        return self

    @model_serializer
    def _to_yaml(self) -> float | list[float]:
        return self.low if self.fixed else [self.low, self.high]

    @property
    def fixed(self) -> bool:
        return self.low == self.high

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


class MergeSpec(Strict):
    """How the source models are merged, and what of it is searched."""

    method: MergeMethodName
    weight: Range = Range(low=0.0, high=1.0)
    density: Range = Range(low=0.1, high=1.0)
    t: Range = Range(low=0.0, high=1.0)
    layer_group_size: Annotated[Integer, Field(ge=1)] | None = None
    layer_groups: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    normalize: bool | None = None
    int8_mask: bool | None = None
    lambda_: Number | None = Field(default=None, alias="lambda")
    dtype: DTypeName | None = None
    tokenizer_source: Literal["base", "union"] | None = None

    @field_validator("density", "t")
    @classmethod
    def _within_unit_interval(cls, value: Range) -> Range:
        if value.low < 0 or value.high > 1:
            raise ValueError("the range must lie within [0, 1]")
        return value

    @field_validator("lambda_")
    @classmethod
    def _finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError("must be finite")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "MergeSpec":
        if self.layer_group_size is not None and self.layer_groups is not None:
            raise ValueError("give layer_group_size or layer_groups, not both")
        if self.layer_groups is not None:
            if not self.layer_groups:
                raise ValueError("layer_groups is empty; name tensor filters, as [self_attn, mlp]")
            if len(set(self.layer_groups)) < len(self.layer_groups):
                raise ValueError("layer_groups names a filter twice")
            if "other" in self.layer_groups:
                raise ValueError(
                    "layer_groups: 'other' is the group of all tensors no filter matches; leave "
                    "it out"
                )
        for name in ("weight", "density", "t"):
            if name in self.model_fields_set and name not in self.searched:
                raise ValueError(
                    f"{self.method} has no parameter '{name}'; it has {', '.join(self.searched)}"
                )
        for name in ("normalize", "int8_mask", "lambda"):
            given = self.option(name) is not None
            if given and name not in MERGE_OPTIONS[self.method]:
                known = ", ".join(MERGE_OPTIONS[self.method]) or "none"
                raise ValueError(f"{self.method} has no option '{name}'; it has {known}")
        return self

    @model_serializer(mode="wrap")
    def _without_foreign_parameters(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what the method does not have, since a spec that gives it is refused."""
        foreign = {"weight", "density", "t"} - set(self.searched)
        return {name: value for name, value in dump(self).items() if name not in foreign}

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters this method searches."""
        return SEARCHED_PARAMETERS[self.method]

    def range_of(self, parameter: str) -> Range:
        """The range of one searched parameter ('weight', 'density' or 't')."""
        return {"weight": self.weight, "density": self.density, "t": self.t}[parameter]

    def option(self, name: str) -> bool | float | None:
        """The value of one of mergekit's options, None where mergekit's own default holds."""
        options = {"normalize": self.normalize, "int8_mask": self.int8_mask, "lambda": self.lambda_}
        return options[name]


class StackSpec(Strict):
    """How layers are stacked (paper, section 3.2): all models' layers in order, r times over."""

    repeats: Annotated[Integer, Field(ge=1)] = 3
    scale: Literal["none", "step", "matrix", "network"] = "network"
    max_layers: Annotated[Integer, Field(ge=1)] | None = None
    anchors: Annotated[Integer, Field(ge=0)] = 0
    head: Literal["first", "last"] = "last"
    dtype: DTypeName | None = None

    @model_validator(mode="after")
    def _room_for_anchors(self) -> "StackSpec":
        if self.max_layers is not None and self.max_layers < max(1, 2 * self.anchors):
            raise ValueError(
                f"max_layers: {self.max_layers} is less than the {2 * self.anchors} anchors"
            )
        return self


class DataSource(Strict):
    """One split of a data set, in the terms of `datasets.load_dataset`."""

    path: str
    name: str | None = None
    split: str = "train"
    columns: tuple[str, ...] | None = None  # names for a CSV or TSV file without a header
    answer: str | None = None  # the answer's column, where it is not the task's


class TaskData(Strict):
    """Where the problems of each split come from."""

    search: DataSource
    dev: DataSource | None = None
    test: DataSource | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_data_set(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {split: {"path": value, "split": split} for split in SPLITS}
        return value

    def sources(self) -> dict[str, DataSource]:
        """The splits that the spec gives, in the order search, dev, test."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {split: source for split, source in found.items() if source is not None}


def _check_template(text: str) -> str:
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"is no template ({error}); write {{{{ and }}}} for braces") from error
    fields = [(name, how, to) for _, name, how, to in parts if name is not None]
    for name, format_spec, conversion in fields:
        if not name.isidentifier():
            raise ValueError(f"'{{{name}}}' names no column; write {{column}}, {{{{ for a brace")
        if format_spec or conversion:
            raise ValueError(f"column '{name}' has a format or conversion; write plain {{{name}}}")
    if not fields:
        raise ValueError("names no column, so all problems are alike; write {column}")
    return text


Template = Annotated[str, AfterValidator(_check_template)]


class GenerateTask(Strict):
    """Generate an answer greedily; the last number in it is compared with the data's."""

    type: Literal["generate"]
    data: TaskData
    prompt: Template = "{question}"
    answer: str = "answer"
    language: str | None = None
    max_new_tokens: Annotated[Integer, Field(ge=1)] = 256

    @property
    def metrics(self) -> tuple[str, ...]:
        names = TASK_METRICS["generate"]
        return names if self.language else names[:2]


class PerplexityTask(Strict):
    """Perplexity: exp of the mean, over texts, of a text's negative log-likelihood per token.

    A text's first token is given, not predicted; a text of one token is left out.
    """

    type: Literal["perplexity"]
    data: TaskData
    text: Template = "{text}"

    @property
    def metrics(self) -> tuple[str, ...]:
        return TASK_METRICS["perplexity"]


Task = Annotated[GenerateTask | PerplexityTask, Field(discriminator="type")]


class Objective(Strict):
    """One metric of one task, `TASK.METRIC`, to maximize or to minimize."""

    maximize: str | None = None
    minimize: str | None = None

    @model_validator(mode="after")
    def _one_direction(self) -> "Objective":
        if (self.maximize is None) == (self.minimize is None):
            raise ValueError("write {maximize: TASK.METRIC} or {minimize: TASK.METRIC}")
        return self

    @property
    def target(self) -> str:
        """`TASK.METRIC`."""
        return self.maximize or self.minimize or ""

    @property
    def task(self) -> str:
        return self.target.partition(".")[0]

    @property
    def metric(self) -> str:
        return self.target.partition(".")[2]

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.maximize is not None else "minimize"


class SamplerSpec(Strict):
    """CMA-ES as Optuna has it: mean at mid-range, sigma one sixth of the range."""

    name: Literal["cmaes"] = "cmaes"
    seed: Annotated[Integer, Field(ge=0, lt=2**31)] = 0
    population: Annotated[Integer, Field(ge=2)] | None = None  # 4 + floor(3 ln n)


class EvaluationSpec(Strict):
    """How candidates are built and run; changes speed, not what is searched.

    `memory_limit` (as 16GB; default: 70% of what is free) is what the resident merger may keep
    between trials.
    """

    batch_size: Annotated[Integer, Field(ge=1)] = 64
    device: Literal["auto", "cpu", "cuda"] = "auto"
    merger: Literal["resident", "checkpoint"] = "resident"
    memory_limit: ByteSize | None = None

    @field_validator("memory_limit")
    @classmethod
    def _with_a_unit(cls, value: ByteSize | None) -> ByteSize | None:
        if value is not None and value < 10**6:
            raise ValueError(f"{int(value)} bytes is less than a megabyte; write a unit, as 16GB")
        return value


class StudySpec(Strict):
    """A whole study. Its YAML form is what `study run` takes and what is stored with the study."""

    study: Annotated[str, Field(min_length=1, max_length=200)]
    stage: str
    models: dict[str, str]
    sampler: SamplerSpec = SamplerSpec()
    trials: Annotated[Integer, Field(ge=1)] = 1000
    tasks: dict[str, Task]
    objectives: tuple[Objective, ...]
    evaluation: EvaluationSpec = EvaluationSpec()

    @field_validator("study")
    @classmethod
    def _not_a_path(cls, value: str) -> str:
        if re.search(r"[/\\\x00-\x1f]", value) or value.endswith((".yaml", ".yml")):
            raise ValueError("a study's name has no '/' and does not end in .yaml")
        if value.startswith("-") or value != value.strip():
            raise ValueError("a study's name begins with no '-' and has no blanks at its ends")
        return value

    @field_validator("models", "tasks")
    @classmethod
    def _plain_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("is empty; name at least one")
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"the name '{name}' may have only letters, digits, '_' and '-'")
        return value

    @model_validator(mode="after")
    def _objectives_and_models(self) -> "StudySpec":
        if len(self.objectives) != 1:
            raise ValueError(
                f"objectives: stage {self.stage} takes exactly one objective, here are "
                f"{len(self.objectives)}"
            )
        for index, objective in enumerate(self.objectives):
            task = self.tasks.get(objective.task)
            where = f"objectives[{index}].{objective.direction}"
            if task is None:
                raise ValueError(
                    f"{where}: there is no task '{objective.task}'; "
                    f"tasks are {', '.join(self.tasks)}"
                )
            if objective.metric not in task.metrics:
                raise ValueError(
                    f"{where}: task '{objective.task}' has no metric '{objective.metric}'; "
                    f"it has {', '.join(task.metrics)}"
                )
        if len(set(self.models.values())) < len(self.models):
            raise ValueError("models: the same model is named twice; remove one")
        return self

    @property
    def objective(self) -> Objective:
        """The single objective."""
        return self.objectives[0]

    @property
    def method(self) -> str:
        """What is searched, in a word or two."""
        raise NotImplementedError

    @property
    def dtype(self) -> DTypeName | None:
        """In which the merged model is made; None: that of the models."""
        raise NotImplementedError

    @property
    def any_vocabulary(self) -> bool:
        """May the models' vocabularies differ?"""
        raise NotImplementedError

    def model_ids(self) -> dict[str, str]:
        """Every model by the key that names it in messages: base_model, models.ALIAS."""
        return {f"models.{alias}": model for alias, model in self.models.items()}

    def to_yaml(self) -> str:
        """The spec as a user would write it, without what is left at its default."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        ordered = {key: content[key] for key in _KEY_ORDER if key in content}
        return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)


class ParameterStudySpec(StudySpec):
    """A search in parameter space: weights and densities of a merge."""

    stage: Literal["ps"]
    base_model: str | None = None
    merge: MergeSpec

    @model_validator(mode="after")
    def _models_for_the_method(self) -> "ParameterStudySpec":
        if self.base_model is None and self.merge.method != "linear":
            raise ValueError(f"base_model: {self.merge.method} needs a base model; add base_model")
        if self.merge.method == "slerp" and len(self.models) != 1:
            raise ValueError(
                "models: slerp goes from base_model to one source model; "
                f"here are {len(self.models)}"
            )
        if len(self.models) == 1 and self.merge.method == "linear":
            raise ValueError("models: linear needs two or more source models")
        if self.base_model in self.models.values() and self.merge.method != "linear":
            raise ValueError(
                "models: the base model is also a source model, so its task vector is zero; "
                "remove it from models"
            )
        return self

    @property
    def method(self) -> str:
        return self.merge.method

    @property
    def dtype(self) -> DTypeName | None:
        return self.merge.dtype

    @property
    def any_vocabulary(self) -> bool:
        return self.merge.tokenizer_source is not None  # mergekit matches them

    def model_ids(self) -> dict[str, str]:
        ids = super().model_ids()
        return {"base_model": self.base_model, **ids} if self.base_model else ids


class StackStudySpec(StudySpec):
    """A search in data-flow space: which layers of the models a token passes through."""

    stage: Literal["dfs"]
    stack: StackSpec = StackSpec()

    @model_validator(mode="after")
    def _models_to_stack(self) -> "StackStudySpec":
        if len(self.models) < 2:
            raise ValueError("models: a stack is made of two or more models")
        if self.evaluation.merger != "resident":
            raise ValueError("evaluation.merger: a stack is scored in memory; write resident")
        return self

    @property
    def method(self) -> str:
        return "layer stack"

    @property
    def dtype(self) -> DTypeName | None:
        return self.stack.dtype

    @property
    def any_vocabulary(self) -> bool:
        return self.stack.head == "first"  # the others' embeddings and heads are not used


_STAGES: dict[Any, type[StudySpec]] = {"ps": ParameterStudySpec, "dfs": StackStudySpec}
_KEY_ORDER = (
    *("study", "stage", "base_model", "models", "merge", "stack", "sampler", "trials"),
    *("tasks", "objectives", "evaluation"),
)


def load_spec(path: Path) -> StudySpec:
    """Reads a spec file; local model and data paths are taken relative to its folder.

    Raises:
        SpecError: the file cannot be read, is not YAML, or is not a valid spec.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text") from error
    try:
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"{path}: is not valid YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path}: a spec is a mapping of keys; see studies/quickstart.yaml")
    return parse_spec(_with_absolute_paths(content, path.absolute().parent), origin=str(path))


def parse_spec(content: dict[str, Any], origin: str = "spec") -> StudySpec:
    """Validates a spec's content.

    Raises:
        SpecError: one line for the first thing wrong: the path of its key, what, and the cure.
    """
    stage = content.get("stage")
    if "stage" in content and (not isinstance(stage, str) or stage not in _STAGES):
        raise SpecError(f"{origin}: stage: should be 'ps' or 'dfs', not {stage!r}")
    try:
        return _STAGES.get(stage, ParameterStudySpec).model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{origin}: {_explain(error)}") from error


def differences(stored: StudySpec, given: StudySpec) -> list[str]:
    """The keys in which two specs differ, as 'key: stored value -> given value'."""
    old, new = (_flatten(spec.model_dump(mode="json", by_alias=True)) for spec in (stored, given))
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would keep the last, and what contains itself.

    Refuses characters, too, that neither a path nor a database can hold.
    """

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True  # PyYAML's own check for recursion needs it
        return super().construct_document(node)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and re.search(r"[\x00\ud800-\udfff]", value):
            raise yaml.constructor.ConstructorError(
                None, None, "a null or surrogate character is no text", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [_flatten(item, f"{path}.{key}" if path else key) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def _with_absolute_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Models and data given as existing local paths become absolute; ids stay as they are."""

    def absolute(text: str) -> str:
        # os.path, since pathlib raises for an unknown user and for a name that is too long.
        if text.startswith(("./", "../", "~", "/")) or os.path.exists(folder / text):
            return os.path.realpath(folder / os.path.expanduser(text))
        return text

    def walk(value: Any, names_path: bool) -> Any:
        if isinstance(value, dict):
            return {
                key: walk(item, key in ("base_model", "path", "data") or value is models)
                for key, item in value.items()
            }
        return absolute(value) if names_path and isinstance(value, str) else value

    models = content.get("models")
    resolved: dict[str, Any] = walk(content, False)
    return resolved


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [part for part in first["loc"] if part not in ("generate", "perplexity")]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        return f"{path}: unknown key{_suggestion(location)}"
    if kind == "missing":
        return f"{path}: missing; add it"
    if kind == "value_error":
        message = str(first["ctx"]["error"])
        return f"{path}: {message}" if path else message
    if kind == "union_tag_not_found":
        return f"{path}.type: missing; write type: generate or type: perplexity"
    message = first["msg"].replace("Input should be", "should be")
    shown = "" if isinstance(given, dict | list) else f", not {given!r}"
    return f"{path}: {message}{shown}"


def _suggestion(location: list[int | str]) -> str:
    known = sorted(_keys_at(location[:-1]))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known keys are {', '.join(known)}"


def _keys_at(location: list[int | str]) -> set[str]:
    """The keys of the part of a spec at this path."""
    parts: dict[str, list[type[Strict]]] = {
        "": list(_STAGES.values()),
        "merge": [MergeSpec],
        "stack": [StackSpec],
        "sampler": [SamplerSpec],
        "evaluation": [EvaluationSpec],
        "objectives": [Objective],
        "data": [TaskData],
        "tasks": list(get_args(get_args(Task)[0])),
        **{split: [DataSource] for split in SPLITS},
    }
    names = [str(part) for part in location if str(part) in parts] or [""]
    fields = [(n, f) for part in parts[names[-1]] for n, f in part.model_fields.items()]
    return {field.alias or name for name, field in fields}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
