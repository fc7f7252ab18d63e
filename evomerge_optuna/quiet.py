"""Libraries kept quiet: their log lines, warnings and progress bars would bury our own lines."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

# What they look at when they are imported or, as those of C++, once they are running.
VARIABLES = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "GRPC_VERBOSITY": "NONE",
}


def be_quiet() -> None:
    """For this process and those that it starts; what the environment says stays."""
    for variable, value in VARIABLES.items():
        os.environ.setdefault(variable, value)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")


def is_quiet() -> bool:
    """Were log lines disabled for this process?"""
    return logging.root.manager.disable >= logging.CRITICAL


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """For a while: no warning, no log line, nothing on stderr; errors are raised as ever."""
    previous = logging.root.manager.disable
    logging.disable(max(previous, logging.ERROR))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
