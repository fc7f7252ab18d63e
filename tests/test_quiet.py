"""Libraries say nothing within the block, and what was set before is set again after it."""

import logging
import sys
import warnings

import pytest

from evomerge_optuna.quiet import is_quiet, quiet


def test_nothing_is_heard_within_the_block(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.manager.disable
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("unheard", stacklevel=1)
            logging.getLogger("library").error("unheard")
            print("unheard", file=sys.stderr)
        warnings.warn("heard", stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["heard"]
    assert capsys.readouterr().err == ""
    assert logging.root.manager.disable == before


def test_errors_are_raised_as_ever() -> None:
    with pytest.raises(ZeroDivisionError), quiet():
        raise ZeroDivisionError


def test_quiet_is_known_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    assert not is_quiet()
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    assert is_quiet()
