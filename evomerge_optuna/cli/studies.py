"""Commands that make, run and delete studies: `example`, `create`, `run`, `watch`,
`retry`, `delete`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evomerge_optuna.cli.options import code_option, open_storage, storage_option
from evomerge_optuna.cli.output import progress_line, say, standing

if TYPE_CHECKING:
    from evomerge_optuna.study.studies import MergeStudy


@click.command("example")
@click.argument("name", required=False)
def study_example(name: str | None) -> None:
    """Copy an example spec into this folder; without a NAME, list the examples."""
    from evomerge_optuna.examples import copy_example, examples

    if name is not None:
        file = copy_example(name, Path())
        click.echo(f"Copied {file}. Run it with: evomerge-optuna study run {file}")
        return
    for known, about in examples().items():
        click.echo(f"{known:20} {about}")


@click.command("create")
@click.argument("spec_file", type=click.Path(path_type=Path))
@storage_option
def study_create(spec_file: Path, storage: str | None) -> None:
    """Check a spec and store its study, but do not run it."""
    from evomerge_optuna.ready import make_study
    from evomerge_optuna.report.outcome import run_command
    from evomerge_optuna.spec import load_spec

    spec = load_spec(spec_file)
    created = make_study(open_storage(storage), spec, say)
    click.echo(f"Created study {created.name}. Run it with: {run_command(created)}")


@click.command("run")
@click.argument("name_or_spec")
@click.option("--trials", type=int, help="Run until the study has this many trials in all.")
@click.option("--workers", type=int, metavar="N", default=1, help="Run this many processes.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Begin no trial after this time.")
@click.option(
    "--no-better-in",
    type=int,
    metavar="N",
    help="Stop after N trials without a better one; 0 goes on where the spec would stop.",
)
@click.option(
    "--grace",
    type=float,
    metavar="SECONDS",
    default=0,
    help="Let running trials finish for this long after SIGTERM.",
)
@code_option
@storage_option
def study_run(name_or_spec: str, allow_code: bool, storage: str | None, **limits: Any) -> None:
    """Run the study of a spec file, or resume a stored study by its name.

    To share a study between machines, run the same command on each of them.
    """
    from evomerge_optuna.run import Face, Limits, run_study
    from evomerge_optuna.spec import is_spec_file, load_spec

    within = Limits(**limits)
    is_file = is_spec_file(name_or_spec)
    study = load_spec(Path(name_or_spec)) if is_file else name_or_spec
    face = Face(say, progress_line, _the_same_command)
    run_study(open_storage(storage), study, within, allow_code=allow_code, face=face)


@click.command("watch")
@click.argument("name")
@storage_option
def study_watch(name: str, storage: str | None) -> None:
    """Show how a study stands that runs elsewhere, until it ends or you press Ctrl-C.

    It only reads the study, and keeps nobody from working on it.
    """
    from evomerge_optuna.report.watch import watch
    from evomerge_optuna.study.studies import open_study

    watched = open_study(open_storage(storage), name)
    try:
        with standing() as show:
            last = watch(watched, show, say)
        click.echo(last)
    except KeyboardInterrupt:
        click.echo(f"Stopped watching {watched.name}; its run goes on wherever it is.")


@click.command("retry")
@click.argument("name")
@click.argument("trial", type=click.IntRange(0), required=False)
@storage_option
def study_retry(name: str, trial: int | None, storage: str | None) -> None:
    """Queue a failed trial again. Without TRIAL: all trials given up after workers died."""
    from evomerge_optuna.report.outcome import run_command
    from evomerge_optuna.search.requeue import retry
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(open_storage(storage), name)
    numbers = ", ".join(map(str, retry(merge_study, trial)))
    click.echo(f"The next run repeats trial {numbers}. Run it with: {run_command(merge_study)}")


@click.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@storage_option
def study_delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study with its trials and artifacts."""
    from evomerge_optuna.study.studies import delete_study

    if not yes:
        click.confirm(f"Delete study {name} with all its trials?", abort=True)
    delete_study(open_storage(storage), name)
    click.echo(f"Deleted study {name}")


def _the_same_command(merge_study: "MergeStudy") -> str:
    """The command that runs the study by its name, with the options the user gave to this one."""
    from evomerge_optuna.report.outcome import run_command

    context = click.get_current_context()
    words: list[str] = []
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        given = source is click.core.ParameterSource.COMMANDLINE
        if isinstance(option, click.Option) and given and not option.is_flag:
            words += [option.opts[0], str(context.params[str(option.name)])]
    return run_command(merge_study, *words)
