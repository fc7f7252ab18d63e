"""The command line: it parses, calls and prints. A command imports what it needs when it runs."""

import signal
from typing import Any

import click

from evomerge_optuna.cli.begin import study_import, study_init
from evomerge_optuna.cli.models import evaluate, stack_import, zoo_build
from evomerge_optuna.cli.results import (
    study_answers,
    study_compare,
    study_export,
    study_figure,
    study_list,
    study_push,
    study_report,
    study_show,
    study_test,
)
from evomerge_optuna.cli.servers import dashboard, storage_serve, storage_upgrade
from evomerge_optuna.cli.studies import (
    study_create,
    study_delete,
    study_example,
    study_retry,
    study_run,
    study_watch,
)
from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.quiet import be_quiet

_LONGEST = 20_000  # characters of a message: all that a person may want to read


class _OneLineErrors(click.Group):
    """Prints errors that a user can cure as one line; `--debug` shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted. Run the same command again to continue.", err=True)
            ctx.exit(130)
        except EvomergeError as error:
            if ctx.params.get("debug"):
                raise
            from evomerge_optuna.explain import one_line

            click.echo(f"Error: {one_line(error, _LONGEST)}", err=True)
            ctx.exit(error.exit_code)


def _show_versions(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from evomerge_optuna.versions import engine_versions

    for name, version in engine_versions().items():
        click.echo(f"{name} {version}")
    context.exit()


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_versions,
    help="Show the versions of this program and of the main libraries.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks and the log lines of libraries.")
def main(debug: bool) -> None:
    """Search for the recipe of a merged language model."""
    if not debug:
        be_quiet()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidies up as Ctrl-C does


_ZOO = [zoo_build]
_STUDY = [
    study_example,
    study_init,
    study_import,
    study_create,
    study_run,
    study_watch,
    study_list,
    study_show,
    study_test,
    study_answers,
    study_compare,
    study_report,
    study_export,
    study_push,
    study_figure,
    study_retry,
    study_delete,
]
_STACK = [stack_import]
_STORAGE = [storage_upgrade, storage_serve]

main.add_command(click.Group("zoo", _ZOO, help="Tiny models to try things with."))
main.add_command(click.Group("study", _STUDY, help="Create, run and look at studies."))
main.add_command(evaluate)
main.add_command(click.Group("stack", _STACK, help="Convert layer stacks of other tools."))
main.add_command(click.Group("storage", _STORAGE, help="Manage the database of the studies."))
main.add_command(dashboard)
