"""One folder holds what the program keeps."""

from pathlib import Path

import pytest

from evomerge_optuna.home import HOME_VARIABLE, home, models_folder


def test_the_variable_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "kept"))
    assert home() == tmp_path / "kept"
    assert models_folder().parent == home()


def test_without_it_it_is_storage_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert home() == tmp_path / "storage"


def test_a_tilde_is_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HOME_VARIABLE, "~/kept")
    assert home() == Path.home() / "kept"
