"""How adapters of one base model are merged into one, and what of it is searched."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, model_validator

from evomerge_optuna.methods import ADAPTER_METHODS, AdapterMethod
from evomerge_optuna.spec.part import Integer
from evomerge_optuna.spec.searched_merge import SearchedMerge, with_keys_of
from evomerge_optuna.spec.study import StudySpec


@with_keys_of(
    ADAPTER_METHODS,
    "How the adapters are merged, as peft's `add_weighted_adapter` calls it, or `lorahub`. Of a "
    "list of methods one is chosen in every trial, together with its parameters.",
)
class AdapterMergeSpec(SearchedMerge):
    """How LoRA adapters of the base model are merged into one, and what of it is searched.

    Parameters are written as those of a merge of whole models are. Filters of `layer_groups` are
    parts of the names of the modules that the adapters change, as `self_attn`.
    """

    space: Literal["adapter"]
    """`adapter`: the models are adapters of the base model, and so is what comes out."""
    max_rank: Annotated[Integer, Field(ge=1)] | None = None
    """The largest rank of the result. What has a larger one is cut by singular value decomposition;
    the export tells what is lost. By default the methods `svd` and `..._svd` give the largest rank
    of the adapters, `cat` the sum of their ranks, and the others that of the adapters, which must
    all have the same."""

    @property
    def rows(self) -> tuple[AdapterMethod, ...]:
        """The rows of the methods."""
        return tuple(ADAPTER_METHODS[method.name] for method in self.methods)


class AdapterStudySpec(StudySpec):
    """A search for a merge of adapters of one base model, each candidate an adapter again."""

    stage: Literal["ps"]
    """Parameter space."""
    base_model: str
    """The base model, on which the adapters were trained: a hub id, a local folder or `zoo:NAME`.
    It is held once."""
    merge: AdapterMergeSpec
    """How the adapters are merged."""
    baselines: tuple[Literal["random_adapters", "trained"], ...] = ()
    """What else `study test` scores, to tell what the search is worth. `random_adapters`: the same
    merge of random adapters, in every module with the norms of the real ones. `trained`: an adapter
    of the same modules that is trained on the search split for five epochs. It is not for tasks of
    types `python`, `lm_eval`, `vqa` and `image`."""

    @model_validator(mode="before")
    @classmethod
    def _adapters_of_the_base(cls, content: Any) -> Any:
        """Names every adapter with its base model, `BASE+ADAPTER`, as everywhere but in the file.

        Raises:
            ValueError: an adapter is named with another base model.
        """
        base = content.get("base_model") if isinstance(content, dict) else None
        models = content.get("models") if isinstance(content, dict) else None
        if not isinstance(base, str) or not isinstance(models, Mapping):
            return content  # which is refused by its type
        if "+" in base:
            raise ValueError(
                f"base_model: {base} has an adapter itself; name the model that the adapters were "
                "trained on"
            )
        named = {alias: _with_base(base, model, str(alias)) for alias, model in models.items()}
        return {**content, "models": named}

    @model_validator(mode="after")
    def _of_text_in_memory(self) -> "AdapterStudySpec":
        if self.evaluation.merger != "resident":
            raise ValueError("evaluation.merger: an adapter is merged in memory; write resident")
        if self.merge.include is not None and len(self.models) == 1:
            raise ValueError(
                "merge.include: there is one adapter, which always takes part; leave include out"
            )
        if self.vision is not None:
            raise ValueError(
                "vision: adapters are merged for language models of text alone; leave it out"
            )
        kinds = {task.type for task in self.tasks.values()}
        if "trained" in self.baselines and not kinds & {"generate", "choice", "perplexity"}:
            raise ValueError(
                f"baselines: there is nothing to train on in tasks of type {', '.join(kinds)}; "
                "leave trained out"
            )
        return self

    @field_serializer("models")
    def _adapters_alone(self, models: dict[str, str]) -> dict[str, str]:
        """As a user writes them."""
        return {alias: model.removeprefix(f"{self.base_model}+") for alias, model in models.items()}

    @property
    def method(self) -> str:
        return f"{self.merge.in_words} of adapters"

    @property
    def dtype(self) -> None:
        """That of the base model."""

    @property
    def asks_at_once(self) -> bool:
        return self.evaluation.row.joins

    @property
    def any_vocabulary(self) -> bool:
        return False

    @property
    def fewest_sources(self) -> int:
        """The least number of adapters that a candidate is made of."""
        return 1

    def model_ids(self) -> dict[str, str]:
        return {"base_model": self.base_model, **super().model_ids()}


def _with_base(base: str, model: Any, alias: str) -> Any:
    if not isinstance(model, str):
        return model
    own, plus, _ = model.partition("+")
    if not plus:
        return f"{base}+{model}"
    if own != base:
        raise ValueError(
            f"models.{alias}: is an adapter of {own}, and base_model is {base}; only adapters of "
            "one base model can be merged"
        )
    return model
