"""What the zoo's models can do, and a merge of them: what is promised, and no digits."""

from contextlib import closing
from pathlib import Path

import yaml

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import Engine
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.families import check_models, with_host
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import StudySpec, parse_spec

STUDIES = Path(__file__).parent.parent.parent / "studies"


def spec_of(study: str, folder: Path) -> StudySpec:
    """The spec of an example, its models in a folder beside each other."""
    content = yaml.safe_load((STUDIES / f"{study}.yaml").read_text())
    for models, key in (
        (content, "base_model"),
        *((content["models"], k) for k in content["models"]),
    ):
        models[key] = str(folder / models[key].removeprefix("zoo:"))
    return parse_spec(content)


def accuracy_of(spec: StudySpec, engine: Engine) -> float:
    """On the search split, by the only objective."""
    (objective,) = spec.objectives
    with closing(engine):
        return Evaluator(spec).evaluate(engine, "search").scores[str(objective.maximize)].value


def of_source(spec: StudySpec, alias: str) -> float:
    return accuracy_of(spec, load_engine(Path(spec.models[alias]), spec.evaluation))


def of_merge(spec: StudySpec, values: dict[str, float]) -> float:
    """Of the merge with these parameters."""
    models = OpenedModels(spec.model_ids())
    spec = with_host(spec, models)
    space = make_space(spec, check_models(spec, models).layers)
    recipe = space.recipe({**space.baseline(), **values})
    return accuracy_of(spec, candidate_builder(spec.evaluation).build(recipe).engine)


def check_language(folder: Path) -> None:
    """One expert speaks, one adds, one multiplies; a merge of two does both."""
    spec = spec_of("quickstart", folder)
    assert max(of_source(spec, alias) for alias in spec.models) < 0.4
    assert of_merge(spec, {}) < 0.4  # the uniform one
    both = {
        f"{name}.{key}.g0": x
        for name in ("ja", "add")
        for key, x in (("weight", 1), ("density", 0.75))
    }
    assert of_merge(spec, {**both, "mul.weight.g0": 0}) > 0.5


def check_vision(folder: Path) -> None:
    """One sees and answers in English, one speaks Japanese; a merge does both at once."""
    spec = spec_of("quickstart_vlm", folder)
    assert of_source(spec, "vlm") < 0.1
    assert of_merge(spec, {"vlm.weight.g0": 1, "ja.weight.g0": 1}) > 0.5
