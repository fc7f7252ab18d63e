"""Rows of a `datasets` data set: from the hub, a local file or the zoo."""

import csv
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.pictures import load_pictures
from evomerge_optuna.models.problems import load_problems
from evomerge_optuna.spec import DataSource

_ZOO: dict[str, Callable[[], Any]] = {
    "zoo:problems": load_problems,
    "zoo:pictures": load_pictures,
}
_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}


def load_rows(source: DataSource, where: str) -> list[dict[str, Any]]:
    """All rows of a split; images are not decoded.

    Args:
        where: the source's place in the spec, named in errors.

    Raises:
        SpecError: they cannot be had, or there are none.
    """
    rows = list(_undecoded(_load(source, where)))
    if not rows:
        raise SpecError(f"{where}: {source.path} [{source.split}] has no rows")
    return rows


def _undecoded(data: Any) -> Any:
    """The data with the files of its images as they are stored."""
    import datasets

    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    return data


def _load(source: DataSource, where: str) -> Any:
    if source.path in _ZOO:
        data = _ZOO[source.path]()
        if source.split not in data:
            raise SpecError(f"{where}: {source.path} has the splits {', '.join(data)}")
        return data[source.split]
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
