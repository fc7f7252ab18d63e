"""How the candidates of a study are built and run."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ByteSize,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from evomerge_optuna.spec.engine_args import NOT_TO_GIVE
from evomerge_optuna.spec.engines import ENGINE_ROWS, EngineName, EngineRow
from evomerge_optuna.spec.part import DeviceName, DTypeName, Integer, Strict


class EvaluationSpec(Strict):
    """How candidates are built and run. Only `dtype` and `engine` may change scores; the rest
    changes the speed."""

    engine: EngineName = "transformers"
    """What runs the candidates. `vllm` keeps one vLLM engine in each worker, and puts one candidate
    after the other into it. It may change the last digits of scores. Pipelines are run by
    `diffusers`, which need not be named."""
    engine_args: dict[str, JsonValue] = Field(default_factory=dict)
    """The arguments of vLLM's engine, for example `{gpu_memory_utilization: 0.6}`. Those that
    depend on the candidate or on another key of the spec cannot be given."""
    batch_size: Annotated[Integer, Field(ge=1)] = 64
    """The number of problems that are run at a time."""
    dtype: DTypeName | None = None
    """The dtype in which candidates are scored. It may change their scores. They are merged, hashed
    and exported in the recipe's dtype, which is also the default here."""
    device: DeviceName = "auto"
    """Where models run: `cpu`, or what torch calls an accelerator, as `cuda`, `cuda:1`, `xpu` or
    `mps`. `auto` takes one if there is one."""
    merger: Literal["resident", "checkpoint"] = "resident"
    """`resident` merges in memory. `checkpoint` writes and loads every candidate, for models that
    do not fit into memory together."""
    memory_limit: ByteSize | None = None
    """How much memory may be kept between trials, for example `16GB`. The default is 70% of the
    free memory."""
    candidates: Annotated[Integer, Field(ge=1)] | None = None
    """How many adapters are asked at once in `vllm`, as one large batch. They are drawn before any
    of them is scored, as by so many workers. The default is a generation of CMA-ES or CatCMA, and 1
    with other samplers. vLLM keeps memory for so many adapters."""
    max_retries: Annotated[Integer, Field(ge=0)] = 3
    """How often a trial is repeated when its workers die at the same place of it."""

    @field_validator("memory_limit")
    @classmethod
    def _with_a_unit(cls, value: ByteSize | None) -> ByteSize | None:
        if value is not None and value < 10**6:
            raise ValueError(f"{int(value)} bytes is less than a megabyte; write a unit, as 16GB")
        if value is not None and value >= 2**63:
            raise ValueError("is more than any machine has; write it as 16GB")
        return value

    @field_validator("engine_args")
    @classmethod
    def _for_a_spec_to_give(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in value:
            if name in NOT_TO_GIVE:
                raise ValueError(f"{name} is not for a spec to give: {NOT_TO_GIVE[name]}")
        return value

    @model_validator(mode="after")
    def _arguments_of_an_engine(self) -> Self:
        if self.engine_args and not self.row.takes_args:
            takers = " or ".join(row.name for row in ENGINE_ROWS.values() if row.takes_args)
            raise ValueError(
                f"engine_args: only {takers} takes them; write engine: {takers}, or remove it"
            )
        return self

    def with_candidates(self, count: int) -> Self:
        """With so many candidates at once."""
        return self.model_copy(update={"candidates": count})

    @property
    def row(self) -> EngineRow:
        """The engine's row of the table."""
        return ENGINE_ROWS[self.engine]

    @model_serializer(mode="wrap")
    def _without_the_usual_engine(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A study that transformers runs is stored as it was before there was another engine, and
        one whose candidates are asked one by one as before they could be asked at once."""
        content: dict[str, Any] = handler(self)
        if self.engine == "transformers":
            content = {k: v for k, v in content.items() if k not in ("engine", "engine_args")}
        if self.candidates is None:
            content.pop("candidates", None)
        return content
