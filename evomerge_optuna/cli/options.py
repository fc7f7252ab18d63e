"""Options that several commands have, and the storage that `--storage` names."""

from typing import TYPE_CHECKING

import click

from evomerge_optuna.errors import UsageError

if TYPE_CHECKING:
    from evomerge_optuna.store.store import Store


def _refuse_password(
    context: click.Context, option: click.Parameter, url: str | None
) -> str | None:
    """The process list shows a command line to everyone on the machine."""
    source = context.get_parameter_source(str(option.name))
    if not url or source is not click.core.ParameterSource.COMMANDLINE:
        return url
    from evomerge_optuna.store.urls import parse_url, passwords

    if passwords(parse_url(url)):
        raise UsageError(
            "--storage has a password, which everyone on this machine can read in the process "
            "list; put the URL into EVOMERGE_STORAGE, or the password into PGPASSWORD or "
            "~/.pgpass"
        )
    return url


storage_option = click.option(
    "--storage",
    envvar="EVOMERGE_STORAGE",
    callback=_refuse_password,
    metavar="URL",
    help="Use this database.  [default: a SQLite file under ./storage]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
code_option = click.option(
    "--allow-code", is_flag=True, help="Allow the code that the tasks of a stored study name."
)
trial_option = click.option(
    "--trial", default="best", metavar="best|knee|N", show_default=True, help="Choose the trial."
)


def open_storage(url: str | None) -> "Store":
    """Opens the storage. Until the command ends, a database error becomes a clear message."""
    from evomerge_optuna.store.faults import database_errors
    from evomerge_optuna.store.open import open_store

    store = open_store(url)
    click.get_current_context().with_resource(database_errors(store.url))
    return store


def open_to_read(url: str | None) -> "Store":
    """Opens the storage for a command that reads whole studies: millions of objects."""
    import gc

    gc.set_threshold(1_000_000, 100)  # by default the collector takes as long as the database
    return open_storage(url)
