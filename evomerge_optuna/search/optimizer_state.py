"""The state of CMA-ES as Optuna keeps it in the database, restored without running foreign code.

A pickle may name any function to be called, and everybody who may write to the database could put
one there. Here it may name what an optimizer consists of and nothing else; and even that is not
called but replaced, for NumPy's own constructors would take any bytes for pointers.
"""

import io
import pickle
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evomerge_optuna.errors import StorageError
from evomerge_optuna.explain import one_line

if TYPE_CHECKING:
    from cmaes import CMA


def restore(state: str) -> "CMA":
    """The optimizer of a pickled state in hexadecimal digits.

    Raises:
        StorageError: it is damaged, or it consists of something else.
    """
    from cmaes import CMA  # imports scipy.stats: a second

    try:
        found = _Unpickler(io.BytesIO(bytes.fromhex(state))).load()
        if not isinstance(found, _Optimizer):
            raise pickle.UnpicklingError("it is no optimizer")
        optimizer: CMA = CMA.__new__(CMA)
        optimizer.__setstate__({name: _value(part) for name, part in found.parts.items()})
        return optimizer
    except Exception as error:  # a damaged pickle raises nearly anything
        raise StorageError(
            f"the stored state of CMA-ES cannot be used ({one_line(error)}); who "
            "wrote it? begin a new study, warmed by this one (warm_start)"
        ) from error


class _Optimizer:
    """Stands for cmaes.CMA: its attributes."""

    def __setstate__(self, parts: dict[str, object]) -> None:
        self.parts = parts


class _Kind:
    """Stands for numpy.dtype: a type of numbers."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise pickle.UnpicklingError(f"{code!r} is no type of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray: numbers copied from the pickle's bytes."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, content = state
        order: Literal["C", "F"] = "F" if by_column else "C"
        self.value = np.frombuffer(content, kind.dtype).reshape(shape, order=order).copy()


def _scalar(kind: _Kind, content: bytes) -> object:
    """Stands for the function that makes one number."""
    (number,) = np.frombuffer(content, kind.dtype)
    return number


def _value(part: object) -> object:
    return part.value if isinstance(part, _Array) else part


_PARTS: dict[tuple[str, str], object] = {
    ("cmaes._cma", "CMA"): _Optimizer,
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): None,  # only ever an argument
    # Before NumPy 2 `_core` was `core`.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("_core", "core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("_core", "core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of an optimizer")
        return _PARTS[module, name]
