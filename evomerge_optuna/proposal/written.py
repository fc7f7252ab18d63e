"""Spec files that are written for a user: valid, whole, and never over another file unasked."""

import os
from pathlib import Path

import yaml

from evomerge_optuna.errors import UsageError
from evomerge_optuna.proposal.draft import Draft
from evomerge_optuna.spec import StudySpec, spec_at


def spec_of(draft: Draft, file: Path) -> StudySpec:
    """The spec of a draft, were it in this file.

    Raises:
        SpecError: it is none.
    """
    return spec_at(file.absolute().parent, yaml.safe_load(draft.text()), origin=str(file))


def check_free(file: Path, overwrite: bool) -> None:
    """Refuses a place where a spec cannot be written.

    Raises:
        UsageError: saying what is in the way, and the cure.
    """
    if not file.name.endswith((".yaml", ".yml")):
        raise UsageError(f"{file}: a spec's file ends in .yaml; name it so")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file}: there is no folder {file.parent}; make it, or write elsewhere")
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists; write to another file, or give --overwrite")


def write(draft: Draft, file: Path, overwrite: bool) -> None:
    """Writes the file of a draft, all of it or nothing.

    Raises:
        UsageError: there is such a file, or it cannot be written.
    """
    check_free(file, overwrite)
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(draft.text(), encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
