"""A sampler that the spec names by its class."""

import inspect

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import create_trial

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.user_code import load_function
from evomerge_optuna.explain import kind_and_message
from evomerge_optuna.spaces.space import SearchSpace, distributions
from evomerge_optuna.spec import SamplerSpec, StudySpec

_KEY = "sampler.class"


def make_user_sampler(spec: SamplerSpec, seed: int) -> BaseSampler:
    """An object of the class, with the spec's arguments, and with the seed if it takes one.

    Raises:
        SpecError: nobody has allowed it, it is no sampler, or it does not take the arguments.
    """
    kind = _class_of(spec)
    seeded = {"seed": seed} if takes_seed(spec) else {}
    try:
        return kind(**spec.arguments, **seeded)
    except Exception as error:  # a class may raise what it likes
        raise SpecError(
            f"sampler.arguments: {spec.class_} cannot be made of them: {kind_and_message(error)}"
        ) from error


def rehearse(spec: StudySpec, space: SearchSpace) -> None:
    """Has the class draw one trial of such a study, in memory, before the study is created.

    Raises:
        SpecError: it cannot, as one that is made for a single objective where there are several.
    """
    if spec.sampler.class_ is None:
        return
    sampler, ranges = make_user_sampler(spec.sampler, 0), distributions(space)
    directions = [objective.direction for objective in spec.objectives]
    first = create_trial(
        params=space.baseline(), distributions=ranges, values=[0.0] * len(directions)
    )
    try:
        study = optuna.create_study(sampler=sampler, directions=directions)
        study.add_trial(first)
        study.ask(ranges)
    except Exception as error:  # a class may raise what it likes
        raise SpecError(
            f"{_KEY}: {spec.sampler.class_} cannot draw a trial of this study: "
            f"{kind_and_message(error)}"
        ) from error


def takes_seed(spec: SamplerSpec) -> bool:
    """Can each trial have random numbers of its own?"""
    return "seed" in inspect.signature(_class_of(spec)).parameters


def _class_of(spec: SamplerSpec) -> type[BaseSampler]:
    assert spec.class_ is not None
    kind = load_function(spec.class_, _KEY)
    if not (isinstance(kind, type) and issubclass(kind, BaseSampler)):
        raise SpecError(f"{_KEY}: {spec.class_} is no class of Optuna's samplers")
    return kind
