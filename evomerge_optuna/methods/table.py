"""The table of merge methods; a new method is a new row."""

from dataclasses import replace

from evomerge_optuna.methods.method import Method, Option, Parameter, Values

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


def _epsilon(values: Values) -> float:
    """mergekit's epsilon, which must leave density - epsilon and density + epsilon in (0, 1)."""
    density = float(values["density"])
    epsilon = float(values["epsilon"]) * min(density, 1 - density)
    return epsilon if density - epsilon > 0 and density + epsilon < 1 else 0.0


EPSILON = Parameter(
    "epsilon",
    "Of della: how much likelier large elements are kept than small ones, from 0 to 0.99 of the "
    "most that the density allows.",
    low=0.0,
    high=0.9,
    bounds=(0.0, 0.99),
    uniform=0.3,
    given=_epsilon,
)
GAMMA = Parameter(
    "gamma",
    "The share of each task vector that is dropped as too large, in [0, 1].",
    low=0.0,
    high=0.1,
    bounds=(0.0, 1.0),
    uniform=0.01,
)
SELECT_TOPK = Parameter(
    "select_topk",
    "The share of elements that is kept, those in which the task vectors differ most, in [0, 1].",
    low=0.1,
    high=1.0,
    scope="shared",
    bounds=(0.0, 1.0),
    uniform=1.0,
)
NEAR = Parameter(
    "t",
    "Of nearswap: up to this difference the source model's element is taken, beyond it ever less.",
    low=0.0,
    high=0.01,
    scope="shared",
    bounds=(0.0, 1.0),
    uniform=0.001,
    alone=(1.0, 1.0),
)
UNCHANGED = Parameter(
    "epsilon",
    "Of ram: up to this difference an element of a source model counts as unchanged.",
    low=0.0,
    high=0.001,
    scope="shared",
    bounds=(0.0, 1.0),
    uniform=1e-5,
)
R = Parameter(
    "r",
    "How much a source model's own changes grow with its share of common changes.",
    low=0.0,
    high=1.0,
    scope="shared",
    uniform=0.1,
)
ALPHA = Parameter(
    "alpha",
    "The most by which `r` may be multiplied.",
    low=0.0,
    high=1.0,
    scope="shared",
    uniform=0.2,
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
    Method(
        "linear",
        (WEIGHT,),
        (NORMALIZED,),
        base="ignored",
        sources=(2, None),
        work=(2, 0),
        divides="normalize",
    ),
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
    Method(
        "della",
        (WEIGHT, DENSITY, EPSILON),
        (NORMALIZED, INT8_MASK, RESCALED, LAMBDA),
        work=(40, 0),
    ),
    Method(
        "della_linear",
        (WEIGHT, DENSITY, EPSILON),
        (NORMALIZE, RESCALED, LAMBDA),
        without_effect=("int8_mask",),
        work=(40, 0),
    ),
    Method(
        "breadcrumbs",
        (WEIGHT, DENSITY, GAMMA),
        (NORMALIZE, RESCALE, LAMBDA),
        without_effect=("int8_mask",),
        work=(24, 0),
    ),
    Method(
        "breadcrumbs_ties",
        (WEIGHT, DENSITY, GAMMA),
        (NORMALIZE, INT8_MASK, RESCALE, LAMBDA),
        work=(24, 1),
    ),
    Method(
        "nuslerp",
        (WEIGHT,),
        (
            Option("nuslerp_row_wise", "Interpolate rows, not columns.", default=False),
            Option("nuslerp_flatten", "Interpolate tensors as one vector each.", default=True),
        ),
        base="optional",
        sources=(2, 2),
        work=(24, 0),
    ),
    Method(
        "multislerp",
        (WEIGHT,),
        (
            Option("normalize_weights", "Divide weights by their sum.", default=True),
            Option("eps", "A norm below this is zero.", default=1e-8),
        ),
        base="optional",
        sources=(2, None),
        work=(16, 10),
        divides="normalize_weights",
    ),
    Method("sce", (SELECT_TOPK,), (INT8_MASK,), work=(12, 9)),
    Method("ram", (UNCHANGED,), work=(18, 17)),
    Method("ramplus_tl", (R, ALPHA, UNCHANGED), work=(18, 17)),
    Method("nearswap", (NEAR,), sources=(1, 1), work=(16, 0)),
)

# These have nothing to search: what they make of the source models is compared with what is found.
_WITHOUT_PARAMETERS = (
    Method(
        "model_stock",
        (),
        (Option("filter_wise", "Compare the task vectors row by row.", default=False),),
        sources=(2, None),
    ),
    Method(
        "karcher",
        (),
        (
            Option("max_iter", "Steps towards the mean.", default=10),
            Option("tol", "The mean is found when a step is below this.", default=1e-5),
        ),
        base="ignored",
        sources=(2, None),
    ),
    Method("arcee_fusion", (), sources=(1, 1)),
)

METHODS = {row.name: row for row in _ROWS}
BASELINES = {row.name: row for row in _WITHOUT_PARAMETERS}
