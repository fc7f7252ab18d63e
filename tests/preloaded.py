"""What takes seconds to import, for processes that are forked from one that has imported it."""

import os

from evomerge_optuna.quiet import VARIABLES

os.environ.update(VARIABLES)  # the libraries look when they are imported

import cmaes  # noqa: F401
import datasets  # noqa: F401
import mergekit.merge  # noqa: F401
import optuna.storages._rdb.storage  # noqa: F401
import psycopg  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import evomerge_optuna.merging.memory
import evomerge_optuna.report.dashboard
import evomerge_optuna.search.loop  # noqa: F401
import tests.conftest  # noqa: F401
