"""A state of CMA-ES from the database is data, not code."""

import pickle
from pathlib import Path

import numpy as np
import optuna
import pytest
from cmaes import CMA
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.errors import StorageError
from evomerge_optuna.search.loop import run_trials
from evomerge_optuna.search.optimizer_state import restore
from evomerge_optuna.store.open import open_store
from evomerge_optuna.study.creation import create_study
from tests.conftest import SpecMaker


def state(generations: int) -> bytes:
    optimizer = CMA(mean=np.zeros(3), sigma=1.0, bounds=np.array([[-1.0, 1.0]] * 3), seed=1)
    for _ in range(generations):
        optimizer.tell([(optimizer.ask(), float(n)) for n in range(optimizer.population_size)])
    return pickle.dumps(optimizer)


@given(st.integers(0, 3))
def test_restores_what_optuna_stores(generations: int) -> None:
    whole = state(generations)
    restored, plain = restore(whole.hex()), pickle.loads(whole)
    assert restored.generation == generations
    assert restored.__getstate__().keys() == plain.__getstate__().keys()
    for name, value in plain.__getstate__().items():
        found = restored.__getstate__()[name]
        assert type(found) is type(value)
        np.testing.assert_array_equal(found, value, strict=isinstance(value, np.ndarray))


@given(st.binary(max_size=200), st.integers(0, 5000))
def test_anything_else_is_a_clear_error(noise: bytes, at: int) -> None:
    whole = state(1)
    for damaged in (noise.hex(), whole[: at % len(whole)].hex(), "not hexadecimal"):
        with pytest.raises(StorageError, match="the stored state of CMA-ES"):
            restore(damaged)


class Call:
    """Pickled, it is a call and what is put into its result."""

    def __init__(self, *parts: object) -> None:
        self.parts = parts

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


POINTER = b"A" * 8
FIELD = Call(np.dtype, ("V8",), (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0))
EMPTY = (np.ndarray, (0,), b"b")


@pytest.mark.parametrize(
    "evil",
    [
        Call(np.ndarray, ((1,), np.dtype("O"), POINTER)),
        Call(np.zeros(0).__reduce__()[0], EMPTY, (1, (1,), np.dtype("O"), False, POINTER)),
        Call(np.zeros(0).__reduce__()[0], EMPTY, (1, (1,), FIELD, False, POINTER)),
        Call(np.zeros(0).__reduce__()[0], EMPTY, (1, (9,), np.dtype("f8"), False, POINTER)),
        np.zeros(3),
    ],
    ids=["array of pointers", "state of pointers", "field of pointers", "too few", "no optimizer"],
)
def test_bytes_are_not_taken_for_pointers(evil: object) -> None:
    with pytest.raises(StorageError, match="the stored state of CMA-ES"):
        restore(pickle.dumps(evil).hex())


class Payload:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.file,)


def test_a_study_does_not_run_what_its_database_holds(
    make_spec: SpecMaker, home: Path, tmp_path: Path
) -> None:
    evil = tmp_path / "evil"
    study = create_study(open_store(), make_spec())
    run_trials(study, 6)
    carrier = study.study.get_trials()[5]
    assert "cma:optimizer:0" in carrier.system_attrs
    planted = optuna.trial.create_trial(
        values=[1.0],
        params=carrier.params,
        distributions=carrier.distributions,
        user_attrs=carrier.user_attrs,
        system_attrs={
            "cma:generation": 9,
            "cma:optimizer:0": pickle.dumps(Payload(evil)).hex(),
        },
    )
    study.study.add_trial(planted)
    with pytest.raises(StorageError, match="no part of an optimizer"):
        run_trials(study, 9)
    assert not evil.exists()
