"""The table of merge methods; a new method is a new row."""

from dataclasses import replace

from evomerge_optuna.methods.method import Method, Option, Parameter

WEIGHT = Parameter(
    "weight",
    "How much of each source model goes into the merge, in each layer group.",
    low=0.0,
    high=1.0,
    alone=(1.0, 0.0),
)
DENSITY = Parameter(
    "density",
    "The share of each task vector that is kept, in [0, 1].",
    low=0.1,
    high=1.0,
    bounds=(0.0, 1.0),
    uniform=1.0,
)
T = Parameter(
    "t",
    "The place between the base model (0) and the source model (1).",
    low=0.0,
    high=1.0,
    scope="shared",
    bounds=(0.0, 1.0),
    uniform=0.5,
    alone=(1.0, 1.0),
)

NORMALIZED = Option("normalize", "Divide by the sum of the weights.", default=True)
NORMALIZE = replace(NORMALIZED, default=False)
INT8_MASK = Option("int8_mask", "Compare signs in int8.", default=False)
RESCALED = Option(
    "rescale", "Scale what is kept of a task vector to the L1 norm it had before.", default=True
)
RESCALE = replace(RESCALED, default=False)
LAMBDA = Option("lambda", "A factor for the merged task vector.", default=1.0)

_ROWS = (
    Method("linear", (WEIGHT,), (NORMALIZED,), base="ignored", sources=(2, None), work=(2, 0)),
    Method(
        "task_arithmetic",
        (WEIGHT,),
        (NORMALIZE, LAMBDA),
        without_effect=("density", "rescale", "int8_mask"),
        work=(8, 0),
    ),
    Method("ties", (WEIGHT, DENSITY), (NORMALIZED, INT8_MASK, RESCALE, LAMBDA), work=(24, 1)),
    Method(
        "dare_linear",
        (WEIGHT, DENSITY),
        (NORMALIZE, RESCALED, LAMBDA),
        without_effect=("int8_mask",),
        work=(16, 0),
    ),
    Method("dare_ties", (WEIGHT, DENSITY), (NORMALIZE, INT8_MASK, RESCALED, LAMBDA), work=(12, 4)),
    Method("slerp", (T,), sources=(1, 1), work=(4, 0)),
)

METHODS = {row.name: row for row in _ROWS}
