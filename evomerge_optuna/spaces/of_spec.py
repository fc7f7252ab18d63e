"""Which search space a spec has."""

from functools import partial

from evomerge_optuna.errors import UsageError
from evomerge_optuna.spaces.adapter import AdapterSpace
from evomerge_optuna.spaces.joint import JointSpace
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spaces.stack import StackSpace
from evomerge_optuna.spec import (
    MERGED,
    AdapterStudySpec,
    JointStudySpec,
    ParameterStudySpec,
    StackStudySpec,
    StagedStudySpec,
    StudySpec,
)


def make_space(spec: StudySpec, layers: dict[str, int]) -> SearchSpace:
    """The space of a spec.

    Args:
        layers: the number of layers of each model, by its key in the spec.

    Raises:
        UsageError: a study whose merge is not known yet has none.
    """
    depth = next(iter(layers.values()))  # of the merge, whose models all have it
    depths = {MERGED: depth} | {alias: layers[f"models.{alias}"] for alias in spec.models}
    if isinstance(spec, ParameterStudySpec):
        return ParameterSpace.of(spec, depth)
    if isinstance(spec, AdapterStudySpec):
        return AdapterSpace.of(spec, depth)
    sampler = spec.sampler
    stack = partial(
        StackSpace, dtype=spec.dtype, host=spec.host, binary=sampler.row.binary, seed=sampler.seed
    )
    if isinstance(spec, StackStudySpec):
        return stack(spec.stack, spec.models, depths)
    if isinstance(spec, JointStudySpec):
        return JointSpace(ParameterSpace.of(spec, depth), stack(spec.stack, spec.stacked, depths))
    if isinstance(spec, StagedStudySpec) and spec.merged is not None:
        merges = {MERGED: spec.merged.without_host()}
        return stack(spec.stack, spec.stacked, depths, merges=merges)
    raise UsageError(f"study '{spec.study}' of stage {spec.stage} has no search space")
