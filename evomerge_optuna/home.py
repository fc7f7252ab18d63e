"""Where files live: one folder for the default database, artifacts, models and scratch."""

import os
from pathlib import Path

HOME_VARIABLE = "EVOMERGE_HOME"


def home() -> Path:
    """The folder of everything this program keeps: `$EVOMERGE_HOME`, else `./storage`."""
    return Path(os.environ.get(HOME_VARIABLE, "storage")).expanduser().absolute()


def models_folder() -> Path:
    """Where trained and converted models are cached."""
    return home() / "models"
