"""The spec of each stage: what a study of it searches."""

from typing import Literal, Self

from pydantic import model_validator

from evomerge_optuna.methods import Method
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec.evaluation import EvaluationSpec
from evomerge_optuna.spec.merge import MergeSpec
from evomerge_optuna.spec.part import DTypeName
from evomerge_optuna.spec.stack import MERGED, MergedStackSpec, StackSpec
from evomerge_optuna.spec.study import StudySpec


class MergeSearchSpec(StudySpec):
    """What searches for a merge have in common."""

    base_model: str | None = None
    """The base model, from which task vectors are taken. Only `linear` needs none."""
    merge: MergeSpec
    """How the source models are merged."""

    @model_validator(mode="after")
    def _models_for_the_method(self) -> "MergeSearchSpec":
        for method in self.merge.methods:
            self._check_models_of(method)
        source = self.merge.tokenizer_source
        if source not in (None, "base", "union", *self.models):
            raise ValueError(
                f"merge.tokenizer_source: '{source}' is none of the models; write base, union, or "
                f"{' or '.join(self.models)}"
            )
        if self.merge.include is not None:
            self._check_include()
        return self

    def _check_models_of(self, method: Method) -> None:
        """Refuses models that the method does not merge."""
        count, (least, most) = len(self.models), method.sources
        if self.base_model is None and method.base == "required":
            raise ValueError(f"base_model: {method.name} needs a base model; add base_model")
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

    def _check_include(self) -> None:
        """Refuses a search for the source models that take part where nothing can be left out."""
        if self.base_model is None or self.base_model in self.models.values():
            raise ValueError(
                "merge.include: every source model may be left out, so the configuration and the "
                "tokenizer come from a base model of their own; add base_model"
            )
        if self.merge.tokenizer_source not in (None, "base"):
            raise ValueError(
                "merge.include: a vocabulary of source models changes with those that take part; "
                "write tokenizer_source: base"
            )
        if len(self.models) == self.fewest_sources:
            methods, one = self.merge.in_words, "its only source model"
            what = one if self.fewest_sources == 1 else f"all {self.fewest_sources} source models"
            raise ValueError(f"merge.include: {methods} needs {what}; leave include out")

    @property
    def fewest_sources(self) -> int:
        """The least number of source models that every method of the spec merges."""
        return max(
            least - (method.base == "ignored" and self.base_model is not None)
            for method in self.merge.methods
            for least in method.sources[:1]
        )

    @property
    def tokenizer_source(self) -> str | None:
        """As in mergekit's configuration: `base`, `union`, or a model."""
        source = self.merge.tokenizer_source
        return self.models.get(source, source) if source else None

    @property
    def components(self) -> tuple[str, ...]:
        return self.merge.components

    def with_blocks(self, blocks: bool | tuple[str, ...]) -> Self:
        """The spec with the names of the blocks that its models have."""
        return self.model_copy(update={"merge": self.merge.model_copy(update={"blocks": blocks})})

    def decided_as(self, other: StudySpec) -> Self:
        own = super().decided_as(other)
        if own.merge.blocks is True and isinstance(other, MergeSearchSpec):
            return own.with_blocks(other.merge.blocks)
        return own

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
    """A search in parameter space, for the weights and densities of a merge."""

    stage: Literal["ps"]
    """Parameter space."""

    @property
    def method(self) -> str:
        return self.merge.in_words


class StackStudySpec(StudySpec):
    """A search in data-flow space, for the layers of the models that a token passes through."""

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
    """What searches for a stack with a merge have in common (paper, section 3.3)."""

    stage: Literal["ps+dfs"]
    """Both spaces."""
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
    """A search for merge and stack together. A trial chooses weights, densities and the path."""

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
        return f"layer stack of a {self.merge.in_words} merge"


class StagedStudySpec(_MergedStack):
    """A search for a stack with the best merge of a finished study, as in the paper."""

    from_study: str
    """The study that found the merge."""
    merged: MergeRecipe | None = None
    """The recipe of that merge. The study gets it when it is created; leave it out."""

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
