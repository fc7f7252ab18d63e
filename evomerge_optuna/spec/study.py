"""The spec of a study, one class for each stage."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec.merge import MergeSpec
from evomerge_optuna.spec.objectives import COSTS, Constraint, Objective
from evomerge_optuna.spec.part import DTypeName, Integer, Number, Strict
from evomerge_optuna.spec.stack import MERGED, MergedStackSpec, StackSpec
from evomerge_optuna.spec.tasks import LMEvalTask, Task

HOST_KEY = "vision"  # under which users name the host
_KEY_ORDER = (
    *("study", "stage", "from_study", "base_model", "models", "vision", "merge", "merged", "stack"),
    *("sampler", "trials", "warm_start", "tasks", "objectives", "constraints", "racing"),
    "evaluation",
)


class SamplerSpec(Strict):
    """CMA-ES for one objective; NSGA-II or NSGA-III for several. As Optuna has them.

    CMA-ES begins at mid-range with a sigma of one sixth of the range, and so does the first
    generation of the other two. One parameter to search is enough for each of them.
    """

    name: Literal["cmaes", "nsga2", "nsga3"] = "cmaes"
    """Which sampler."""
    seed: Annotated[Integer, Field(ge=0, lt=2**31)] = 0
    """Of the sampler, and of the masks of DARE."""
    population: Annotated[Integer, Field(ge=2)] | None = None
    """Trials a generation; 4 + floor(3 ln n) of CMA-ES and 50 of the others unless given."""


class EvaluationSpec(Strict):
    """How candidates are built and run; but for `dtype` it changes speed, not what is searched."""

    batch_size: Annotated[Integer, Field(ge=1)] = 64
    """Problems at a time."""
    dtype: DTypeName | None = None
    """What candidates are scored in, which may change their scores; as they are unless given. They
    are merged, hashed and exported as the recipe says."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models run; auto: on a GPU if there is one."""
    merger: Literal["resident", "checkpoint"] = "resident"
    """In memory, or by a checkpoint of each candidate, for models that do not fit."""
    memory_limit: ByteSize | None = None
    """What may be kept between trials, as `16GB`; 70% of what is free unless given."""
    max_retries: Annotated[Integer, Field(ge=0)] = 3
    """How often a trial is tried again whose workers die at one place of it."""

    @field_validator("memory_limit")
    @classmethod
    def _with_a_unit(cls, value: ByteSize | None) -> ByteSize | None:
        if value is not None and value < 10**6:
            raise ValueError(f"{int(value)} bytes is less than a megabyte; write a unit, as 16GB")
        if value is not None and value >= 2**63:
            raise ValueError("is more than any machine has; write it as 16GB")
        return value


class RacingSpec(Strict):
    """A candidate is scored block by block, and stopped once it is surely worse than the best.

    That is what Optuna's `WilcoxonPruner` finds of the blocks' scores at `p_threshold`.
    """

    blocks: Annotated[Integer, Field(ge=2)] = 10
    """How many blocks the problems of the search split are scored in."""
    p_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.1
    """A candidate is stopped once the signed-rank test's p is below it."""

    @property
    def undecided(self) -> int:
        """So many blocks say too little to stop a candidate, were they all lost."""
        # The signed-rank test of n blocks gives no smaller p than 0.5**n, that of n losses.
        return math.floor(-math.log2(self.p_threshold))

    @model_validator(mode="after")
    def _can_stop(self) -> "RacingSpec":
        if self.undecided >= self.blocks - 1:
            raise ValueError(
                f"blocks: {self.blocks} are too few to be sure of anything before the last one at "
                f"p_threshold {self.p_threshold:g}; write more"
            )
        return self


class StudySpec(Strict):
    """A whole study. Its YAML form is what `study run` takes and what is stored with the study."""

    study: Annotated[str, Field(min_length=1, max_length=200)]
    """The study's name in the database."""
    stage: str
    """What is searched."""
    models: dict[str, str]
    """The source models by names of yours: hub ids, local folders, or `zoo:NAME`."""
    vision: str | None = None
    """The model, by alias or as `base_model`, whose vision tower and projector the merged one
    keeps; the first that has any unless given."""
    sampler: SamplerSpec = SamplerSpec()
    """What draws the candidates."""
    trials: Annotated[Integer, Field(ge=1)] = 1000
    """How many candidates are wanted in all."""
    tasks: dict[str, Task]
    """What candidates are scored on, by names of yours."""
    objectives: tuple[Objective, ...]
    """What the search is after; the first one decides where one must."""
    constraints: tuple[Constraint, ...] = ()
    """Bounds to keep, as `"math.accuracy >= 0.5"`; not of CMA-ES."""
    warm_start: tuple[str, ...] = ()
    """Studies whose best recipes enter the first population."""
    # Beside `evaluation`, which may change in a study: it decides what the sampler is told.
    racing: RacingSpec | None = None
    """Stop hopeless candidates early; of a single objective. Off unless given."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How candidates are built and run."""

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
    def _measures_exist(self) -> "StudySpec":
        if not self.objectives:
            raise ValueError("objectives: is empty; write - maximize: TASK.METRIC")
        for index, objective in enumerate(self.objectives):
            self._check_measure(f"objectives[{index}].{objective.direction}", objective.target)
        for index, constraint in enumerate(self.constraints):
            self._check_measure(f"constraints[{index}]", constraint.target)
        targets = [objective.target for objective in self.objectives]
        if len(set(targets)) < len(targets):
            raise ValueError("objectives: the same measure is named twice; remove one")
        return self

    @model_validator(mode="after")
    def _sampler_for_the_objectives(self) -> "StudySpec":
        if self.sampler.name == "cmaes" and len(self.objectives) > 1:
            raise ValueError(
                f"objectives: CMA-ES takes exactly one objective, here are "
                f"{len(self.objectives)}; write sampler: {{name: nsga2}}"
            )
        if self.sampler.name == "cmaes" and self.constraints:
            raise ValueError(
                "constraints: CMA-ES knows no constraints; write sampler: {name: nsga2}"
            )
        return self

    @model_validator(mode="after")
    def _one_score_to_race(self) -> "StudySpec":
        if self.racing is not None and len(self.objectives) > 1:
            raise ValueError(
                f"racing: only a single objective can be raced, here are {len(self.objectives)}; "
                "remove racing"
            )
        if self.racing is not None and self.objective.is_cost:
            raise ValueError(
                f"racing: {self.objective.target} is known without any problem; remove racing"
            )
        return self

    @model_validator(mode="after")
    def _different_models(self) -> "StudySpec":
        if len(set(self.models.values())) < len(self.models):
            raise ValueError("models: the same model is named twice; remove one")
        return self

    @model_validator(mode="after")
    def _checkpoints_for_backends(self) -> "StudySpec":
        for name, task in self.tasks.items():
            if isinstance(task, LMEvalTask) and task.backend is not None:
                if self.stacking is not None:
                    raise ValueError(
                        f"tasks.{name}.backend: a stack is scored in memory; remove backend"
                    )
                if self.evaluation.merger != "checkpoint":
                    raise ValueError(
                        f"tasks.{name}.backend: {task.backend} loads a checkpoint from disk; "
                        "write evaluation: {merger: checkpoint}, or remove backend"
                    )
                if self.evaluation.dtype is not None:
                    raise ValueError(
                        f"evaluation.dtype: {task.backend} loads the checkpoint itself; write it "
                        f"as {task.backend} takes it into tasks.{name}.backend_args"
                    )
        return self

    @model_validator(mode="after")
    def _vision_of_a_model(self) -> "StudySpec":
        known = [key.removeprefix("models.") for key in self.model_ids()]
        if self.vision is not None and self.vision not in known:
            raise ValueError(
                f"vision: there is no model '{self.vision}'; models are {', '.join(known)}"
            )
        return self

    def _check_measure(self, where: str, target: str) -> None:
        name, _, metric = target.partition(".")
        if target in COSTS:
            if self.stacking is None:
                raise ValueError(f"{where}: {target} is the same for all merges of a study")
        elif name not in self.tasks:
            raise ValueError(
                f"{where}: there is no task '{name}'; tasks are {', '.join(self.tasks)}"
                + (f"; costs are {', '.join(COSTS)}" if self.stacking else "")
            )
        elif metric not in self.tasks[name].metrics:
            raise ValueError(
                f"{where}: task '{name}' has no metric '{metric}'; "
                f"it has {', '.join(self.tasks[name].metrics)}"
            )

    @property
    def objective(self) -> Objective:
        """The first objective, by which tables sort."""
        return self.objectives[0]

    @property
    def has_dev(self) -> bool:
        """Can the first objective be scored on dev?"""
        task = self.tasks.get(self.objective.task)
        return task is not None and task.data.dev is not None

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

    @property
    def stacking(self) -> StackSpec | None:
        """How layers are stacked; None where they are not."""
        return None

    @property
    def any_depth(self) -> bool:
        """May the models differ in their number of layers?"""
        return False

    @property
    def host(self) -> str | None:
        """The model that keeps everything but the part that is merged; None: all is merged."""
        ids = {key.removeprefix("models."): model for key, model in self.model_ids().items()}
        return None if self.vision is None else ids[self.vision]

    @property
    def host_key(self) -> str | None:
        """The host by the key that names it in messages."""
        host = self.host
        return next((key for key, model in self.model_ids().items() if model == host), None)

    def with_host(self, key: str) -> Self:
        """The spec with the model of this key as its host."""
        return self.model_copy(update={HOST_KEY: key.removeprefix("models.")})

    def with_host_of(self, other: "StudySpec") -> Self:
        """The spec with the host that another spec names, unless it names one itself."""
        return self if self.vision else self.model_copy(update={HOST_KEY: other.vision})

    @property
    def tokenizer_source(self) -> str | None:
        """Whose vocabulary a merge of models with different vocabularies has; None: not given."""
        return None

    def model_ids(self) -> dict[str, str]:
        """Every model by the key that names it in messages: base_model, models.ALIAS."""
        return {f"models.{alias}": model for alias, model in self.models.items()}

    def source_ids(self) -> dict[str, str]:
        """The source models by their keys in the spec.

        The base model is one of them where it gives the vision: it is what answered about images.
        """
        seeing = ["base_model"] if self.vision == "base_model" else []
        keys = (*seeing, *(f"models.{alias}" for alias in self.models))
        return {key: model for key, model in self.model_ids().items() if key in keys}

    def to_yaml(self) -> str:
        """The spec as a user would write it, without what is left at its default."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        ordered = {key: content[key] for key in _KEY_ORDER if key in content}
        return to_yaml(ordered)


class MergeSearchSpec(StudySpec):
    """What is common to searches for a merge."""

    base_model: str | None = None
    """What the task vectors are taken from; only `linear` does without."""
    merge: MergeSpec
    """How the source models are merged."""

    @model_validator(mode="after")
    def _models_for_the_method(self) -> "MergeSearchSpec":
        method, count = self.merge.declared, len(self.models)
        if self.base_model is None and method.base == "required":
            raise ValueError(f"base_model: {method.name} needs a base model; add base_model")
        least, most = method.sources
        if most == 1 < count:
            raise ValueError(
                f"models: {method.name} goes from base_model to one source model; here are {count}"
            )
        if count < least or (most is not None and count > most):
            wanted = {1: "one", 2: "two"}.get(least, least)
            more = "" if most == least else " or more"
            raise ValueError(f"models: {method.name} needs {wanted}{more} source models")
        if self.base_model in self.models.values() and method.base != "ignored":
            raise ValueError(
                "models: the base model is also a source model, so its task vector is zero; "
                "remove it from models"
            )
        source = self.merge.tokenizer_source
        if source not in (None, "base", "union", *self.models):
            raise ValueError(
                f"merge.tokenizer_source: '{source}' is none of the models; write base, union, or "
                f"{' or '.join(self.models)}"
            )
        return self

    @property
    def tokenizer_source(self) -> str | None:
        """As in mergekit's configuration: `base`, `union`, or a model."""
        source = self.merge.tokenizer_source
        return self.models.get(source, source) if source else None

    @property
    def dtype(self) -> DTypeName | None:
        return self.merge.dtype

    @property
    def any_vocabulary(self) -> bool:
        return self.merge.tokenizer_source is not None  # mergekit matches them

    def model_ids(self) -> dict[str, str]:
        ids = super().model_ids()
        return {"base_model": self.base_model, **ids} if self.base_model else ids


class ParameterStudySpec(MergeSearchSpec):
    """A search in parameter space: weights and densities of a merge."""

    stage: Literal["ps"]
    """Parameter space."""

    @property
    def method(self) -> str:
        return self.merge.method


class StackStudySpec(StudySpec):
    """A search in data-flow space: which layers of the models a token passes through."""

    stage: Literal["dfs"]
    """Data-flow space."""
    stack: StackSpec = StackSpec()
    """How layers are stacked."""

    @model_validator(mode="after")
    def _models_to_stack(self) -> "StackStudySpec":
        if len(self.models) < 2:
            raise ValueError("models: a stack is made of two or more models")
        _check_merger(self.evaluation)
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

    @property
    def stacking(self) -> StackSpec:
        return self.stack

    @property
    def any_depth(self) -> bool:
        return True


class _MergedStack(StudySpec):
    """What is common to searches for a stack of which one model is a merge (paper, section 3.3)."""

    stage: Literal["ps+dfs"]
    """Both."""
    stack: MergedStackSpec = MergedStackSpec()
    """How layers are stacked."""

    @model_validator(mode="after")
    def _models_to_stack(self) -> "_MergedStack":
        if MERGED in self.models:
            raise ValueError(f"models: '{MERGED}' is the merge itself; choose another name")
        unknown = [name for name in self.stack.models or () if name not in (MERGED, *self.models)]
        if unknown:
            raise ValueError(
                f"stack.models: there is no model '{unknown[0]}'; models are "
                f"{', '.join((MERGED, *self.models))}"
            )
        _check_merger(self.evaluation)
        return self

    @property
    def stacking(self) -> StackSpec:
        return self.stack

    @property
    def stacked(self) -> dict[str, str]:
        """The models whose layers are stacked, by alias, in order; the merge by its own name."""
        known = {MERGED: MERGED, **self.models}
        return {name: known[name] for name in self.stack.models or known}


class JointStudySpec(_MergedStack, MergeSearchSpec):
    """A search for merge and stack at once: weights, densities and path are one trial."""

    @model_validator(mode="after")
    def _one_vocabulary(self) -> "JointStudySpec":
        if self.merge.tokenizer_source is not None and self.stack.head != "first":
            raise ValueError(
                "stack.head: a merge with a tokenizer_source may have other tokens than its "
                "sources; write head: first"
            )
        return self

    @property
    def method(self) -> str:
        return f"layer stack of a {self.merge.method} merge"


class StagedStudySpec(_MergedStack):
    """A search for a stack of the best merge that a finished study found (the paper's way)."""

    from_study: str
    """The study that found the merge."""
    merged: MergeRecipe | None = None
    """That merge's recipe, which the study gets when it is created; leave it out."""

    @property
    def method(self) -> str:
        return f"layer stack of the best of {self.from_study}"

    @property
    def dtype(self) -> DTypeName | None:
        return self.merged.configuration.get("dtype") if self.merged else None

    @property
    def any_vocabulary(self) -> bool:
        return self.stack.head == "first"

    @property
    def any_depth(self) -> bool:
        return True

    @property
    def host(self) -> str | None:
        return super().host or (self.merged.host if self.merged else None)

    @property
    def tokenizer_source(self) -> str | None:
        return self.merged.configuration.get("tokenizer_source") if self.merged else None

    def model_ids(self) -> dict[str, str]:
        merged = self.merged.models() if self.merged else []
        return {f"from_study[{n}]": name for n, name in enumerate(merged)} | super().model_ids()


def _check_merger(evaluation: EvaluationSpec) -> None:
    if evaluation.merger != "resident":
        raise ValueError("evaluation.merger: a stack is scored in memory; write resident")
