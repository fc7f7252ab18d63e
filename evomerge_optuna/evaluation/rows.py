"""Rows of a `datasets` data set: from the hub, a local file or the zoo."""

import csv
import glob
import os
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec import DataSource

ZOO_PROBLEMS = "zoo:problems"
_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def load_rows(source: DataSource, where: str) -> list[dict[str, Any]]:
    """All rows of a split.

    Args:
        where: the source's place in the spec, named in errors.

    Raises:
        SpecError: they cannot be had, or there are none.
    """
    rows = list(_load(source, where))
    if not rows:
        raise SpecError(f"{where}: {source.path} [{source.split}] has no rows")
    return rows


def _load(source: DataSource, where: str) -> Any:
    if source.path == ZOO_PROBLEMS:
        from evomerge_optuna.models.problems import load_problems as load_zoo_problems

        problems = load_zoo_problems()
        if source.split not in problems:
            raise SpecError(f"{where}: zoo:problems has the splits {', '.join(problems)}")
        return problems[source.split]
    import datasets

    datasets.disable_progress_bars()
    path = Path(source.path)
    found = os.path.exists(path)  # pathlib raises for a name that is too long
    try:
        if path.suffix in _BUILDERS and (path.is_absolute() or found):
            if not found:
                raise SpecError(f"{where}: there is no file {path}; correct the path")
            options: dict[str, Any] = {}
            if path.suffix == ".tsv":
                options = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
            if source.columns is not None:
                options["column_names"] = list(source.columns)
            return datasets.load_dataset(
                _BUILDERS[path.suffix],
                data_files=glob.escape(str(path)),
                split=source.split,
                **options,
            )
        return datasets.load_dataset(source.path, source.name, split=source.split)
    except SpecError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SpecError(
            f"{where}: '{source.path}' is not a local file and the hub does not give it: {first}"
            if not found
            else f"{where}: {source.path} [{source.split}] cannot be read: {first}"
        ) from error
