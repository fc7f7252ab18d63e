"""The data sets that the zoo's models are tried on, by their names in a spec: a row for each."""

from collections.abc import Callable

from evomerge_optuna.zoo.images.scenes import scene_rows
from evomerge_optuna.zoo.pictures import picture_rows
from evomerge_optuna.zoo.problems import SPLIT_SIZES, problem_rows

Rows = list[dict[str, object]]

ZOO_DATA: dict[str, Callable[[str], Rows]] = {
    "zoo:problems": problem_rows,
    "zoo:pictures": picture_rows,
    "zoo:scenes": scene_rows,
}
ZOO_SPLITS = tuple(SPLIT_SIZES)  # which all of them have
