"""The command line: parses, calls, prints. Everything else is imported when a command needs it."""

import json
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evomerge_optuna.errors import EvomergeError, Interrupted, UsageError
from evomerge_optuna.quiet import be_quiet

if TYPE_CHECKING:
    from rich.console import Console

    from evomerge_optuna.store.store import Store
    from evomerge_optuna.study.studies import MergeStudy
    from evomerge_optuna.study.trials import Trials


class _Group(click.Group):
    """Prints errors that a user can cure as one line; `--debug` shows the traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted; the same command again goes on", err=True)
            ctx.exit(130)
        except EvomergeError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            ctx.exit(error.exit_code)


def _show_versions(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from evomerge_optuna.versions import engine_versions

    for name, version in engine_versions().items():
        click.echo(f"{name} {version}")
    context.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_versions,
    help="Show the version, and those of the engines.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks, and what libraries log.")
def main(debug: bool) -> None:
    """Search for the recipe of a merged language model."""
    if not debug:
        be_quiet()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidies up as Ctrl-C does


def _refuse_password(
    context: click.Context, option: click.Parameter, url: str | None
) -> str | None:
    """A command line is in the process list, which everyone on the machine can read."""
    source = context.get_parameter_source(str(option.name))
    if not url or source is not click.core.ParameterSource.COMMANDLINE:
        return url
    from evomerge_optuna.store.urls import parse_url, passwords

    if passwords(parse_url(url)):
        raise UsageError(
            "--storage has a password, which everyone on this machine can read in the process "
            "list; put the URL into EVOMERGE_STORAGE, or leave the password to PGPASSWORD or "
            "~/.pgpass"
        )
    return url


storage_option = click.option(
    "--storage",
    envvar="EVOMERGE_STORAGE",
    callback=_refuse_password,
    metavar="URL",
    help="Database of the studies.  [default: a SQLite file under ./storage]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
code_option = click.option(
    "--allow-code", is_flag=True, help="Run the code that a stored study's tasks name."
)
trial_option = click.option(
    "--trial", default="best", metavar="best|knee|N", show_default=True, help="Which trial."
)


@main.group()
def zoo() -> None:
    """Tiny models to try things with."""


@zoo.command("build")
def zoo_build() -> None:
    """Train all of the zoo's models, once."""
    from evomerge_optuna.home import models_folder
    from evomerge_optuna.models.catalog import ZOO_MODELS

    _build_zoo(ZOO_MODELS, _console())
    click.echo(f"The zoo is in {models_folder()}")


@main.group()
def study() -> None:
    """Create, run and look at studies."""


@study.command("example")
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


@study.command("create")
@click.argument("spec_file", type=click.Path(path_type=Path))
@storage_option
def study_create(spec_file: Path, storage: str | None) -> None:
    """Check a spec and store its study without running it."""
    from evomerge_optuna.opening import make_study
    from evomerge_optuna.spec import load_spec

    console = _console()
    spec = load_spec(spec_file)
    say, train_zoo = partial(_say, console), partial(_build_zoo, console=console)
    created = make_study(_store(storage), spec, say, train_zoo)
    click.echo(f"Created study {created.name}. Run it: {_run_by_name(created)}")


@study.command("run")
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
    from evomerge_optuna.running import run_here, run_with_workers
    from evomerge_optuna.spec import is_spec_file, load_spec

    console = _console()
    say, train_zoo = partial(_say, console), partial(_build_zoo, console=console)
    store = _store(storage)
    if is_spec_file(name_or_spec):
        merge_study = make_or_continue(store, load_spec(Path(name_or_spec)), say, train_zoo)
    else:
        merge_study = open_with_models(store, name_or_spec, train_zoo)
    if allow_code:
        allow_code_of(merge_study.spec)
    wanted = trials or merge_study.spec.trials
    check_unchanged(merge_study, say)
    run = run_here if workers == 1 else partial(run_with_workers, workers=workers)
    try:
        with _progress(console, merge_study, wanted) as show:
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
    _say(console, _outcome(merge_study, wanted, _command(merge_study)))


@study.command("list")
@storage_option
@json_option
def study_list(storage: str | None, as_json: bool) -> None:
    """List the studies."""
    from evomerge_optuna.report.tables import studies_json, studies_table
    from evomerge_optuna.study.studies import list_studies

    summaries = list_studies(_store_to_read(storage), say=partial(click.echo, err=True))
    _print(studies_json(summaries) if as_json else studies_table(summaries))


@study.command("show")
@click.argument("name")
@storage_option
@json_option
def study_show(name: str, storage: str | None, as_json: bool) -> None:
    """Show a study's best trials and final scores."""
    from evomerge_optuna.report.gap import gap_text
    from evomerge_optuna.report.tables import (
        final_table,
        state_counts,
        study_json,
        study_table,
    )
    from evomerge_optuna.results.final import choice, stored_final_scores
    from evomerge_optuna.study.foreign import named
    from evomerge_optuna.study.studies import open_study

    shown = open_study(_store_to_read(storage), name)
    if as_json:
        _print(study_json(shown))
        return
    counts = ", ".join(f"{n} {state}" for state, n in state_counts(shown).items() if n)
    click.echo(f"{shown.name}: {counts or 'no trials'}; {shown.spec.trials} wanted")
    if (stopped := len(shown.read().stopped)) > 0:
        click.echo(f"{stopped} trials were stopped early, surely worse than the best by then")
    _tell(named(shown.read().foreign))
    best = choice(shown)
    if best is not None:
        _print(study_table(shown))
        if rows := stored_final_scores(shown, best):
            _print(final_table(shown.spec, rows))
            _tell(gap_text(shown.spec.objective, rows[-1]))


@study.command("test")
@click.argument("name")
@trial_option
@code_option
@storage_option
@json_option
def study_test(name: str, trial: str, allow_code: bool, storage: str | None, as_json: bool) -> None:
    """Score sources, uniform merge and a trial on all splits."""
    from evomerge_optuna.opening import allow_code_of, check_unchanged
    from evomerge_optuna.report.dashboard import describe_study
    from evomerge_optuna.report.gap import gap_text
    from evomerge_optuna.report.tables import final_json, final_table
    from evomerge_optuna.results.final import FinalScorer, choose_trial
    from evomerge_optuna.study.studies import open_study

    say = partial(_say, _console())
    merge_study = open_study(_store(storage), name)
    if allow_code:
        allow_code_of(merge_study.spec)
    check_unchanged(merge_study, say)
    scorer = FinalScorer(merge_study, say=say)
    if trial == "best":
        scorer.score_finalists()
    chosen = choose_trial(merge_study, trial)
    rows = scorer.final_scores(chosen)
    describe_study(merge_study)
    spec = merge_study.spec
    _print(final_json(spec, rows) if as_json else final_table(spec, rows))
    if not as_json:
        _tell(gap_text(spec.objective, rows[-1]))
        which = "" if trial == "best" else f" --trial {trial}"
        click.echo(
            "Look at the study: evomerge-optuna dashboard\n"
            f"Keep the model:    evomerge-optuna study export {name}{which} OUT"
        )


@study.command("answers")
@click.argument("name")
@click.option(
    "--trial",
    "trials",
    default=("best",),
    multiple=True,
    metavar="best|knee|N",
    show_default=True,
    help="Which trial, several times for several.",
)
@click.option(
    "--split",
    type=click.Choice(["search", "dev", "test"]),
    help="Which problems.  [default: the last of these with answers]",
)
@click.option("--wrong", is_flag=True, help="Only problems that the first of the trials has wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines, one an answer.")
@storage_option
def study_answers(
    name: str,
    trials: tuple[str, ...],
    split: str | None,
    wrong: bool,
    as_json: bool,
    storage: str | None,
) -> None:
    """Show what sources, uniform merge and a trial have answered.

    Stored are those of each trial that was the best when it ended, and all that study test scores.
    """
    from evomerge_optuna.report.answers import answer_lines, answer_view, answers_of_study
    from evomerge_optuna.results.final import choose_trial
    from evomerge_optuna.study.studies import open_study

    shown = open_study(_store_to_read(storage), name)
    chosen = [choose_trial(shown, trial) for trial in trials]
    asked = answers_of_study(shown, chosen, split, partial(click.echo, err=True))
    if wrong:
        asked = [problem for problem in asked if problem.is_wrong(f"trial {chosen[0].number}")]
    if not as_json:
        _print(answer_view(asked))
        return
    for line in answer_lines(asked):
        click.echo(line)


@study.command("compare")
@click.argument("names", nargs=-1, required=True)
@click.option("--html", type=click.Path(path_type=Path), help="Write a report with figures, too.")
@storage_option
@json_option
def study_compare(
    names: tuple[str, ...], html: Path | None, storage: str | None, as_json: bool
) -> None:
    """Compare studies: progress, test scores, paired tests."""
    from evomerge_optuna.report.comparison import write_report
    from evomerge_optuna.report.tables import comparison_json, comparison_tables
    from evomerge_optuna.results.compare import compare
    from evomerge_optuna.study.studies import open_study

    store = _store_to_read(storage)
    comparison = compare([open_study(store, name) for name in dict.fromkeys(names)])
    if as_json:
        _print(comparison_json(comparison))
    else:
        for table in comparison_tables(comparison):
            _print(table)
    if html is not None:
        try:
            write_report(comparison, html)
        except OSError as error:
            raise EvomergeError(f"{html}: cannot be written: {error.strerror}") from error
        click.echo(f"The report is in {html}", err=True)


@study.command("export")
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@trial_option
@storage_option
def study_export(name: str, out: Path, trial: str, storage: str | None) -> None:
    """Write a trial's model to the new folder OUT."""
    from evomerge_optuna.report.export import export
    from evomerge_optuna.results.final import FINALISTS, choose_trial, without_dev_score
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(_store(storage), name)
    chosen = choose_trial(merge_study, trial)
    digest = export(merge_study, chosen, out, partial(_say, _console()))
    click.echo(f"Exported trial {chosen.number} to {out} (sha256 {digest[:12]}, as scored)")
    if trial == "best" and without_dev_score(merge_study):
        _say(
            _console(),
            f"It is the best on search; study test {name} scores the best {FINALISTS} on dev, "
            "which then decides",
        )


@study.command("figure")
@click.argument("name")
@trial_option
@storage_option
def study_figure(name: str, trial: str, storage: str | None) -> None:
    """Attach the figure of a trial's layer path to the study."""
    from evomerge_optuna.report.dashboard import attach_path
    from evomerge_optuna.results.final import choose_trial
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(_store(storage), name)
    chosen = choose_trial(merge_study, trial)
    file = attach_path(merge_study, chosen)
    click.echo(f"Attached {file} to study {name}; look at it: evomerge-optuna dashboard")


@study.command("retry")
@click.argument("name")
@click.argument("trial", type=click.IntRange(0), required=False)
@storage_option
def study_retry(name: str, trial: int | None, storage: str | None) -> None:
    """Queue a failed trial again; without TRIAL all that were given up when workers died."""
    from evomerge_optuna.search.requeue import retry
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(_store(storage), name)
    numbers = ", ".join(map(str, retry(merge_study, trial)))
    click.echo(f"Tried again by the next run: trial {numbers}. Run it: {_run_by_name(merge_study)}")


@study.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@storage_option
def study_delete(name: str, yes: bool, storage: str | None) -> None:
    """Delete a study, its trials and artifacts."""
    from evomerge_optuna.study.studies import delete_study

    if not yes:
        click.confirm(f"Delete study {name} with all its trials?", abort=True)
    delete_study(_store(storage), name)
    click.echo(f"Deleted study {name}")


@main.command()
@click.argument("model")
@click.option("--task", metavar="SPEC_OR_NAME", required=True, help="A spec file, or a study.")
@click.option(
    "--split", default="test", show_default=True, type=click.Choice(["search", "dev", "test"])
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the answers to FILE, too, as JSON lines.",
)
@code_option
@storage_option
@json_option
def evaluate(
    model: str,
    task: str,
    split: str,
    answers: Path | None,
    allow_code: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Score a checkpoint (folder, hub id or zoo:NAME) on the tasks of a spec or a study."""
    from evomerge_optuna.models.catalog import check_exists
    from evomerge_optuna.opening import allow_code_of
    from evomerge_optuna.report.answers import check_answers_file, write_answers
    from evomerge_optuna.report.tables import evaluation_json, evaluation_table
    from evomerge_optuna.scoring import score_checkpoint
    from evomerge_optuna.spec import is_spec_file, load_spec
    from evomerge_optuna.study.studies import open_study

    is_file = is_spec_file(task)
    if is_file:
        spec, day = load_spec(Path(task)), None
    else:
        opened = open_study(_store(storage), task)
        spec, day = opened.spec, opened.day
    if is_file or allow_code:
        allow_code_of(spec)
    if answers is not None:
        for line in check_answers_file(answers, spec):
            _say(_console(), line)
    check_exists(model, "MODEL")
    _build_zoo([model], _console())
    evaluation = score_checkpoint(model, spec, split, day)
    for remark in evaluation.remarks.values():
        _say(_console(), remark)
    if answers is not None:
        write_answers(answers, model, spec, evaluation)
    shown = evaluation_json if as_json else evaluation_table
    _print(shown(model, evaluation))


@main.group()
def stack() -> None:
    """Layer stacks outside of studies."""


@stack.command("import")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def stack_import(model: Path, out: Path) -> None:
    """Fold a DFS model in the format of the paper's release into a plain checkpoint OUT."""
    from evomerge_optuna.merging.released import import_released

    recipe = import_released(model, out)
    click.echo(f"Folded {len(recipe.steps)} steps of {model} into {out}")


@main.group()
def storage() -> None:
    """The database of the studies."""


@storage.command("upgrade")
@storage_option
def storage_upgrade(storage: str | None) -> None:
    """Bring the tables of an older Optuna up to date."""
    from evomerge_optuna.store.open import upgrade

    click.echo(f"The tables are of version {upgrade(storage)}")


@storage.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=13000, show_default=True, type=click.IntRange(0, 65535))
@storage_option
def storage_serve(host: str, port: int, storage: str | None) -> None:
    """Serve the storage to many workers by gRPC."""
    from evomerge_optuna.store.proxy import serve

    try:
        serve(
            _store(storage),
            host,
            port,
            on_ready=lambda url: click.echo(
                f"Workers reach it with EVOMERGE_STORAGE={url} (Ctrl-C stops it)"
            ),
        )
    except KeyboardInterrupt:
        click.echo("Stopped")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535))
@storage_option
def dashboard(host: str, port: int, storage: str | None) -> None:
    """Serve optuna-dashboard on the same storage."""
    from evomerge_optuna.report.dashboard import serve

    try:
        serve(
            _store_to_read(storage),
            host,
            port,
            on_ready=lambda url: click.echo(f"Dashboard at {url} (Ctrl-C stops it)"),
        )
    except KeyboardInterrupt:
        click.echo("Stopped")


def _store(url: str | None) -> "Store":
    """Opens the storage; whatever its database does until the command ends is told in words."""
    from evomerge_optuna.store.faults import database_errors
    from evomerge_optuna.store.open import open_store

    store = open_store(url)
    click.get_current_context().with_resource(database_errors(store.url))
    return store


def _store_to_read(url: str | None) -> "Store":
    """The storage for a command that reads whole studies, which are objects by the million."""
    import gc

    gc.set_threshold(1_000_000, 100)  # by default the collector takes as long as the database
    return _store(url)


def _console() -> "Console":
    """Progress and remarks go to stderr; stdout has results alone."""
    from rich.console import Console

    return Console(stderr=True)


def _say(console: "Console", line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


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


def _tell(line: str) -> None:
    if line:
        click.echo(line)


def _print(result: Any) -> None:
    """A table, or several, or anything else as one JSON document."""
    from rich.console import Console, Group
    from rich.table import Table

    if isinstance(result, Table | Group):
        # A pipe has no width of its own; a table must not be cut for it.
        Console(width=None if sys.stdout.isatty() else 120).print(result)
    else:
        click.echo(json.dumps(result, ensure_ascii=False, indent=2))


def _build_zoo(models: Iterable[str], console: "Console") -> None:
    """Trains the families of the zoo's models among these, unless they are there."""
    from rich.progress import Progress

    from evomerge_optuna.models.catalog import ZOO_PREFIX, zoo_folder

    of_the_zoo = [model for model in models if model.startswith(ZOO_PREFIX)]
    if not of_the_zoo:
        return  # a bar without progress leaves an empty line
    with Progress(console=console) as progress:
        task = progress.add_task("training the zoo", visible=False)
        for model in of_the_zoo:
            zoo_folder(
                model,
                lambda done, total: progress.update(
                    task, completed=done, total=total, visible=True
                ),
            )


@contextmanager
def _progress(
    console: "Console", merge_study: "MergeStudy", wanted: int
) -> Iterator[Callable[[], None]]:
    """A progress line with the best score so far; yields what moves it on."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[best]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(merge_study.name, total=wanted, best="")

        def show() -> None:
            trials = merge_study.read()
            progress.update(
                task,
                description=merge_study.name,
                completed=trials.finished,
                best=_best_line(trials),
            )

        show()
        yield show


def _best_line(trials: "Trials") -> str:
    best = trials.best
    if best is None:
        return "no score yet"
    return f"best {trials.objectives[0].target} {best.values[0]:.4g} (trial {best.number})"


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
    parts = [f"{merge_study.name}: {finished} trials", _best_line(trials)]
    if errors:
        name = shlex.quote(merge_study.name)
        parts.append(f"{len(errors)} failed (evomerge-optuna study show {name} --json)")
    if finished < wanted:
        parts.append(f"time is up; go on: {command}")
    return "; ".join(parts)
