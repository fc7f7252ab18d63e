"""`sampler: auto`: the sampler of a study is chosen when it is created, and stored with it.

The choice stands on the searches of benchmarks/README.md.
"""

from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import Choices, StudySpec
from evomerge_optuna.spec.samplers import AUTO
from evomerge_optuna.spec.search import SamplerSpec

_FEW = 500  # trials that a Gaussian process is fitted to within seconds
_NARROW = 200  # parameters, likewise


def with_sampler(spec: StudySpec, layers: dict[str, int]) -> tuple[StudySpec, str | None]:
    """The spec with a sampler in the place of `auto`, and a line that says why.

    Args:
        layers: the number of layers of each model, by its key in the spec.
    """
    if spec.sampler.name != AUTO:
        return spec, None
    ranges = make_space(_with(spec, "gp"), layers).ranges()
    of_what = f"{spec.trials} trials of {len(ranges)} parameters"
    if spec.trials <= _FEW and len(ranges) <= _NARROW:
        name, reason = "gp", f"{of_what} are few enough for it, and no other needs fewer"
    elif len(spec.objectives) > 1 or spec.constraints:
        several = "several objectives" if len(spec.objectives) > 1 else "constraints"
        name, reason = "nsga2", f"there are {several}, and {of_what} are many for gp"
    elif any(isinstance(found, Choices) for found in _with_numbers(spec, layers)):
        name, reason = "catcma", f"there are lists of choices, and {of_what} are many for gp"
    else:
        name, reason = "cmaes", f"{of_what} are many for gp"
    return _with(spec, name), f"auto: {name}, since {reason}"


def _with(spec: StudySpec, name: str) -> StudySpec:
    return spec.model_copy(update={"sampler": SamplerSpec(name=name, seed=spec.sampler.seed)})


def _with_numbers(spec: StudySpec, layers: dict[str, int]) -> list[object]:
    """The parameters' kinds where what can be a number is one."""
    return list(make_space(_with(spec, "cmaes"), layers).ranges().values())
