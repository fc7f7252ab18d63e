"""Studies made and run: `study example`, `create`, `run`, `retry`, `delete`."""

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evomerge_optuna.cli.options import code_option, open_storage, storage_option
from evomerge_optuna.cli.output import best_line, build_zoo, progress_line, say
from evomerge_optuna.errors import EvomergeError, Interrupted

if TYPE_CHECKING:
    from evomerge_optuna.study.studies import MergeStudy


@click.command("example")
@click.argument("name", required=False)
def study_example(name: str | None) -> None:
    """Copy a spec to begin with into this folder; without a NAME, list them."""
    from evomerge_optuna.examples import copy_example, examples

    if name is not None:
        file = copy_example(name, Path())
        click.echo(f"Copied {file}. Run it: evomerge-optuna study run {file}")
        return
    for known, about in examples().items():
        click.echo(f"{known:20} {about}")


@click.command("create")
@click.argument("spec_file", type=click.Path(path_type=Path))
@storage_option
def study_create(spec_file: Path, storage: str | None) -> None:
    """Check a spec and store its study without running it."""
    from evomerge_optuna.opening import make_study
    from evomerge_optuna.spec import load_spec

    spec = load_spec(spec_file)
    created = make_study(open_storage(storage), spec, say, build_zoo)
    click.echo(f"Created study {created.name}. Run it: {_run_by_name(created)}")


@click.command("run")
@click.argument("name_or_spec")
@click.option("--trials", type=click.IntRange(1), help="Total wanted, with those already run.")
@click.option("--workers", type=click.IntRange(1), metavar="N", default=1, help="Processes.")
@click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Stop after.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    metavar="SECONDS",
    default=0,
    help="After SIGTERM, to finish what is running.",
)
@code_option
@storage_option
def study_run(
    name_or_spec: str,
    trials: int | None,
    workers: int,
    timeout: float | None,
    grace: float,
    allow_code: bool,
    storage: str | None,
) -> None:
    """Run a study: created from a spec file, or resumed by its name.

    Workers on any number of machines share a study: run the same command on each.
    """
    from evomerge_optuna.opening import (
        allow_code_of,
        check_unchanged,
        make_or_continue,
        open_with_models,
    )
    from evomerge_optuna.report.dashboard import describe_study
    from evomerge_optuna.run import run_here, run_with_workers
    from evomerge_optuna.spec import is_spec_file, load_spec

    store = open_storage(storage)
    if is_spec_file(name_or_spec):
        merge_study = make_or_continue(store, load_spec(Path(name_or_spec)), say, build_zoo)
    else:
        merge_study = open_with_models(store, name_or_spec, build_zoo)
    if allow_code:
        allow_code_of(merge_study.spec)
    wanted = trials or merge_study.spec.trials
    check_unchanged(merge_study, say)
    run = run_here if workers == 1 else partial(run_with_workers, workers=workers)
    try:
        with progress_line(merge_study, wanted) as show:
            run(
                merge_study,
                wanted,
                timeout=timeout,
                grace=grace,
                show=show,
                say=say,
            )
    except Interrupted as error:
        raise Interrupted(
            f"stopped after {merge_study.finished()} trials; all are kept. "
            f"Go on: {_command(merge_study)}"
        ) from error
    describe_study(merge_study)
    say(_outcome(merge_study, wanted, _command(merge_study)))


@click.command("retry")
@click.argument("name")
@click.argument("trial", type=click.IntRange(0), required=False)
@storage_option
def study_retry(name: str, trial: int | None, storage: str | None) -> None:
    """Queue a failed trial again; without TRIAL all that were given up when workers died."""
    from evomerge_optuna.search.requeue import retry
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(open_storage(storage), name)
    numbers = ", ".join(map(str, retry(merge_study, trial)))
    click.echo(f"Tried again by the next run: trial {numbers}. Run it: {_run_by_name(merge_study)}")


@click.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@storage_option
def study_delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study, its trials and artifacts."""
    from evomerge_optuna.study.studies import delete_study

    if not yes:
        click.confirm(f"Delete study {name} with all its trials?", abort=True)
    delete_study(open_storage(storage), name)
    click.echo(f"Deleted study {name}")


def _command(merge_study: "MergeStudy") -> str:
    """What goes on with a study that was stopped: the same options, as far as they were given."""
    context = click.get_current_context()
    words: list[str] = []
    for option in context.command.params:
        source = context.get_parameter_source(str(option.name))
        given = source is click.core.ParameterSource.COMMANDLINE
        if isinstance(option, click.Option) and given and not option.is_flag:
            words += [option.opts[0], str(context.params[str(option.name)])]
    return _run_by_name(merge_study, *words)


def _run_by_name(merge_study: "MergeStudy", *options: str) -> str:
    """The spec comes from the database then, so that code which it names has to be allowed."""
    from evomerge_optuna.evaluation.user_code import code_of

    code = ["--allow-code"] if code_of(merge_study.spec) else []
    return shlex.join(["evomerge-optuna", "study", "run", merge_study.name, *options, *code])


def _outcome(merge_study: "MergeStudy", wanted: int, command: str) -> str:
    """What a run came to, in one line.

    Raises:
        EvomergeError: all wanted trials are done, and none has a score.
    """
    from evomerge_optuna.study.studies import ERROR

    trials = merge_study.read()
    finished = trials.finished
    errors = [t.user_attrs[ERROR] for t in trials.counted if ERROR in t.user_attrs]
    if finished >= wanted and len(errors) == finished:
        raise EvomergeError(
            f"{merge_study.name}: none of {finished} candidates could be scored; "
            f"the last one: {errors[-1]}"
        )
    parts = [f"{merge_study.name}: {finished} trials", best_line(trials)]
    if errors:
        name = shlex.quote(merge_study.name)
        parts.append(f"{len(errors)} failed (evomerge-optuna study show {name} --json)")
    if finished < wanted:
        parts.append(f"time is up; go on: {command}")
    return "; ".join(parts)
