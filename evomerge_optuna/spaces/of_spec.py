"""Which search space a spec has."""

from evomerge_optuna.errors import UsageError
from evomerge_optuna.spaces.parameter import ParameterSpace
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spaces.stack import StackSpace
from evomerge_optuna.spec import ParameterStudySpec, StackStudySpec, StudySpec


def make_space(spec: StudySpec, layers: dict[str, int]) -> SearchSpace:
    """The space of a spec whose models have so many layers, by their keys in the spec."""
    if isinstance(spec, StackStudySpec):
        depths = {alias: layers[f"models.{alias}"] for alias in spec.models}
        return StackSpace(spec, depths)
    if isinstance(spec, ParameterStudySpec):
        return ParameterSpace.of(spec, next(iter(layers.values())))
    raise UsageError(f"stage {spec.stage} has no search space")
