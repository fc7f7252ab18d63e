"""Where models come from, a module for each kind of source.

A new source is a class of `base.Source` in a module here, and its row in `SOURCES`.
"""

from evomerge_optuna.models.sources.adapted import AdaptedSource
from evomerge_optuna.models.sources.base import Source
from evomerge_optuna.models.sources.hub import HubSource
from evomerge_optuna.models.sources.path import PathSource
from evomerge_optuna.models.sources.single_file import SingleFileSource
from evomerge_optuna.models.sources.zoo import ZooSource

# The first that recognises a name gives the model; every name may be one of the hub.
_FOLDERS: tuple[Source, ...] = (ZooSource(), PathSource(), HubSource())
_BASES: tuple[Source, ...] = (SingleFileSource(_FOLDERS), *_FOLDERS)
SOURCES: tuple[Source, ...] = (AdaptedSource(_BASES), *_BASES)


def source_of(name: str) -> Source:
    """The source of the model of this name."""
    return next(source for source in SOURCES if source.recognises(name))
