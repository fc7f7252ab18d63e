"""The state of CMA-ES as Optuna keeps it in the database, restored without running foreign code.

A pickle may name any function to be called, and everybody who may write to the database could put
one there. Here it may name what an optimizer consists of and nothing else.
"""

import io
import pickle
from typing import Any

from evomerge_optuna.errors import StorageError

_PARTS = {
    ("cmaes._cma", "CMA"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    # Before NumPy 2 `_core` was `core`.
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("_core", "core")
        for name in ("_reconstruct", "scalar")
    ),
}


def restore(state: str) -> Any:
    """The optimizer of a pickled state in hexadecimal digits.

    Raises:
        StorageError: it is damaged, or it consists of something else.
    """
    try:
        return _Unpickler(io.BytesIO(bytes.fromhex(state))).load()
    except _NOT_A_STATE as error:
        raise StorageError(
            f"the stored state of CMA-ES cannot be used ({' '.join(str(error).split())}); who "
            "wrote it? begin a new study, warmed by this one (warm_start)"
        ) from error


# What `pickle` raises for bytes that are no pickle, or of another class of this name.
_NOT_A_STATE = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an optimizer")
        return super().find_class(module, name)
