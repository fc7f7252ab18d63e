"""What the specs of all stages have in common."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from evomerge_optuna.plain_yaml import to_yaml
from evomerge_optuna.spec.evaluation import EvaluationSpec
from evomerge_optuna.spec.images import ImageTask
from evomerge_optuna.spec.metrics import Metric
from evomerge_optuna.spec.objectives import COSTS, Constraint, Objective
from evomerge_optuna.spec.part import DTypeName, Integer, Strict
from evomerge_optuna.spec.samplers import AUTO
from evomerge_optuna.spec.search import RacingSpec, SamplerSpec, StopSpec
from evomerge_optuna.spec.single_file import with_pipeline
from evomerge_optuna.spec.stack import StackSpec
from evomerge_optuna.spec.tasks import LMEvalTask, Task

HOST_KEY = "vision"  # under which users name the host
_KEY_ORDER = (
    *("study", "stage", "from_study", "base_model", "models", "vision", "merge", "merged", "stack"),
    *("sampler", "trials", "starts", "warm_start", "tasks", "objectives", "constraints", "racing"),
    *("stop", "baselines", "evaluation"),
)

_NEED_NOT_BE_NAMED = ("diffusers",)  # engines, since the models decide


def _asks_a_person(task: Task) -> bool:
    return isinstance(task, ImageTask) and bool(task.human)


class StudySpec(Strict):
    """A whole study. `study run` takes it as YAML, and it is stored with the study."""

    study: Annotated[str, Field(min_length=1, max_length=200)]
    """The study's name in the database."""
    stage: str
    """The stage: what is searched."""
    models: dict[str, str]
    """The source models, under names that you choose: hub ids, local folders, or `zoo:NAME`. Of
    pipelines also single files, as `FILE.safetensors` or `FILE.safetensors@PIPELINE`, which take
    configuration, scheduler and tokenizer of the pipeline: the base model, or else the first of
    `models` that is no file."""
    vision: str | None = None
    """The model of which the merge keeps what is not merged, such as a vision tower, or the
    autoencoder and tokenizer of a pipeline: a name of `models`, or `base_model`. The default is the
    first model that has such parts."""
    sampler: SamplerSpec = SamplerSpec()
    """The sampler, which draws the candidates."""
    trials: Annotated[Integer, Field(ge=1)] = 1000
    """The number of candidates in all."""
    starts: bool = True
    """Begin with the points that people try by hand: of a merge all models at 0.5, all at 1, every
    pair and each alone at 1; of a stack other models, halves of models, and neighbours of the
    identity path. They are at most a quarter of `trials`, and shown as baselines. CMA-ES and CatCMA
    go on from the best of them; GP, TPE and the genetic algorithms learn from them."""
    tasks: dict[str, Task]
    """The tasks that candidates are scored on, under names that you choose."""
    objectives: tuple[Objective, ...]
    """The objectives of the search. The first one decides where only one can."""
    constraints: tuple[Constraint, ...] = ()
    """Bounds to keep, for example `"math.accuracy >= 0.5"`. CMA-ES cannot use them."""
    warm_start: tuple[str, ...] = ()
    """The studies whose best recipes enter the first population."""
    # Beside `evaluation`, which may change in a study: it decides what the sampler is told.
    racing: RacingSpec | None = None
    """Stop hopeless candidates early. It works with a single objective. It is off by default."""
    stop: StopSpec | None = None
    """Stop a search that finds nothing better any more. It is off by default."""
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

    @model_validator(mode="before")
    @classmethod
    def _files_have_pipelines(cls, content: Any) -> Any:
        models = content.get("models") if isinstance(content, dict) else None
        if not isinstance(models, dict) or not all(isinstance(m, str) for m in models.values()):
            return content  # which is refused by its type
        names = {f"models.{alias}": model for alias, model in models.items()}
        if isinstance(base := content.get("base_model"), str):
            names = {"base_model": base, **names}
        named = with_pipeline(names)
        own = {"base_model": named["base_model"]} if "base_model" in named else {}
        return {**content, **own, "models": {alias: named[f"models.{alias}"] for alias in models}}

    @field_validator("models", "tasks")
    @classmethod
    def _plain_names(cls, value: dict[str, object]) -> dict[str, object]:
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
        if self.sampler.name == AUTO:
            return self
        sampler = self.sampler.row
        if not sampler.several and len(self.objectives) > 1:
            raise ValueError(
                f"objectives: {sampler.title} takes exactly one objective, here are "
                f"{len(self.objectives)}; write sampler: {{name: nsga2}}"
            )
        if not sampler.several and self.constraints:
            raise ValueError(
                f"constraints: {sampler.title} knows no constraints; write sampler: {{name: nsga2}}"
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
        if self.racing is not None and any(map(_asks_a_person, self.tasks.values())):
            raise ValueError(
                "racing: a person is asked once about all pictures of a trial, not about blocks of "
                "them; remove racing"
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
    def _several_where_they_can_be(self) -> "StudySpec":
        if (self.evaluation.candidates or 1) > 1 and not self.asks_at_once:
            raise ValueError(
                "evaluation.candidates: only adapters are asked at once, and only by vllm; write "
                "merge: {space: adapter} and evaluation: {engine: vllm}, or remove it"
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
        elif metric not in (known := [m.name for m in self.tasks[name].metrics]):
            raise ValueError(
                f"{where}: task '{name}' has no metric '{metric}'; it has {', '.join(known)}"
            )

    @property
    def objective(self) -> Objective:
        """The first objective, by which tables sort."""
        return self.objectives[0]

    def metric(self, target: str) -> Metric:
        """What a target is, `TASK.METRIC` or a cost."""
        if target in COSTS:
            return Metric(target, "number", "low")
        task, _, name = target.partition(".")
        known = self.tasks[task].metrics
        return next((m for m in known if m.name == name), Metric(name, "number"))

    @property
    def has_dev(self) -> bool:
        """Can the first objective be scored on dev?"""
        task = self.tasks.get(self.objective.task)
        if isinstance(task, ImageTask) and self.objective.target.partition(".")[2] in task.human:
            return False  # nobody is asked about dev
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
    def asks_at_once(self) -> bool:
        """Can several candidates be asked at once?"""
        return False

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

    def with_engine(self, engine: str) -> Self:
        """The spec with another engine."""
        evaluation = self.evaluation.model_copy(update={"engine": engine})
        return self.model_copy(update={"evaluation": evaluation})

    def decided_as(self, other: "StudySpec") -> Self:
        """The spec with what the models of another spec decided, where it says nothing itself."""
        own = self if self.vision else self.model_copy(update={HOST_KEY: other.vision})
        engine, is_given = other.evaluation.engine, "engine" in self.evaluation.model_fields_set
        return own.with_engine(engine) if engine in _NEED_NOT_BE_NAMED and not is_given else own

    @property
    def components(self) -> tuple[str, ...]:
        """What is merged of pipelines beside their denoisers."""
        return ()

    @property
    def tokenizer_source(self) -> str | None:
        """Whose vocabulary a merge of models with different vocabularies has; None: not given."""
        return None

    def model_ids(self) -> dict[str, str]:
        """Every model by the key that names it in messages: base_model, models.ALIAS."""
        return {f"models.{alias}": model for alias, model in self.models.items()}

    def source_ids(self) -> dict[str, str]:
        """The source models by their keys in the spec.

        The base model is one of them if it is the host, since it could answer about images before.
        """
        host = ["base_model"] if self.vision == "base_model" else []
        keys = (*host, *(f"models.{alias}" for alias in self.models))
        return {key: model for key, model in self.model_ids().items() if key in keys}

    def to_yaml(self) -> str:
        """The spec as a user would write it, without what is left at its default."""
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        ordered = {key: content[key] for key in _KEY_ORDER if key in content}
        return to_yaml(ordered)
