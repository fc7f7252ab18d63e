"""Commands that show what studies found: `list`, `show`, `test`, `answers`, `compare` and more."""

import shlex
from functools import partial
from pathlib import Path

import click

from evomerge_optuna.cli.options import (
    code_option,
    json_option,
    open_storage,
    open_to_read,
    storage_option,
    trial_option,
)
from evomerge_optuna.cli.output import print_line, print_result, say
from evomerge_optuna.errors import EvomergeError


@click.command("list")
@storage_option
@json_option
def study_list(storage: str | None, as_json: bool) -> None:
    """List the studies."""
    from evomerge_optuna.report.study_list import studies_json, studies_table
    from evomerge_optuna.study.studies import list_studies

    store = open_to_read(storage)
    summaries = list_studies(store, say=partial(click.echo, err=True))
    if summaries or as_json:
        print_result(studies_json(summaries) if as_json else studies_table(summaries))
        return
    click.echo(
        f"There is no study in {store} yet. Begin with an example:\n"
        "  evomerge-optuna study example quickstart\n"
        "  evomerge-optuna study run quickstart.yaml"
    )


@click.command("show")
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
    from evomerge_optuna.results.chosen_trial import chosen_trial
    from evomerge_optuna.results.convergence import convergence_remark
    from evomerge_optuna.results.final_scores import stored_final_scores
    from evomerge_optuna.study.foreign import named
    from evomerge_optuna.study.studies import open_study

    shown = open_study(open_to_read(storage), name).as_read()
    if as_json:
        print_result(study_json(shown))
        return
    counts = ", ".join(f"{n} {state}" for state, n in state_counts(shown).items() if n)
    click.echo(f"{shown.name}: {counts or 'no trials'}; {shown.spec.trials} wanted")
    if (stopped := len(shown.read().stopped)) > 0:
        click.echo(f"{stopped} trials were stopped early, clearly worse than the best so far")
    print_line(named(shown.read().foreign))
    print_line(convergence_remark(shown, shown.read()))
    best = chosen_trial(shown)
    if best is not None:
        print_result(study_table(shown))
        if rows := stored_final_scores(shown, best):
            print_result(final_table(shown.name, shown.spec, rows))
            objective = shown.spec.objective
            print_line(gap_text(objective, shown.spec.metric(objective.target), rows[-1]))


@click.command("test")
@click.argument("name")
@trial_option
@code_option
@storage_option
@json_option
def study_test(name: str, trial: str, allow_code: bool, storage: str | None, as_json: bool) -> None:
    """Score the source models, the uniform merge and a trial on all splits."""
    from evomerge_optuna.ready import allow_code_of
    from evomerge_optuna.report.dashboard import describe_study
    from evomerge_optuna.report.gap import gap_text
    from evomerge_optuna.report.tables import final_json, final_table
    from evomerge_optuna.results.chosen_trial import find_trial
    from evomerge_optuna.results.final_scorer import FinalScorer
    from evomerge_optuna.study.renamed import following
    from evomerge_optuna.study.studies import open_study
    from evomerge_optuna.study.unchanged import check_unchanged

    merge_study = open_study(open_storage(storage), name)
    if allow_code:
        allow_code_of(merge_study.spec)
    check_unchanged(merge_study, say)
    scorer = FinalScorer(merge_study, say=say)
    if trial == "best":
        scorer.score_finalists()
    chosen = following(merge_study, lambda: find_trial(merge_study.as_read(), trial))
    rows = scorer.final_scores(chosen)
    following(merge_study, partial(describe_study, merge_study))
    study, spec = merge_study.name, merge_study.spec  # which may have been renamed meanwhile
    print_result(final_json(study, spec, rows) if as_json else final_table(study, spec, rows))
    if not as_json:
        print_line(gap_text(spec.objective, spec.metric(spec.objective.target), rows[-1]))
        which = "" if trial == "best" else f" --trial {trial}"
        click.echo(
            "Look at the study with: evomerge-optuna dashboard\n"
            f"Keep the model with:    evomerge-optuna study export {shlex.quote(study)}{which} OUT"
        )


@click.command("answers")
@click.argument("name")
@click.option(
    "--trial",
    "trials",
    default=("best",),
    multiple=True,
    metavar="best|knee|N",
    show_default=True,
    help="Choose the trial; repeat the option for more.",
)
@click.option(
    "--split",
    type=click.Choice(["search", "dev", "test"]),
    help="Choose the problems.  [default: the last split with answers]",
)
@click.option("--wrong", is_flag=True, help="Show only problems that the first trial got wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each answer.")
@storage_option
def study_answers(
    name: str,
    trials: tuple[str, ...],
    split: str | None,
    wrong: bool,
    as_json: bool,
    storage: str | None,
) -> None:
    """Show the answers of the source models, the uniform merge and a trial.

    The study keeps the answers of each trial that was the best when it ended, and of every model
    that study test scores.
    """
    from evomerge_optuna.report.answers import answer_lines, answer_view, answers_of_study
    from evomerge_optuna.results.chosen_trial import find_trial
    from evomerge_optuna.study.studies import open_study

    shown = open_study(open_to_read(storage), name).as_read()
    chosen = [find_trial(shown, trial) for trial in trials]
    asked = answers_of_study(shown, chosen, split, partial(click.echo, err=True))
    if wrong:
        asked = [problem for problem in asked if problem.is_wrong(f"trial {chosen[0].number}")]
    if not as_json:
        print_result(answer_view(asked))
        return
    for line in answer_lines(asked):
        click.echo(line)


@click.command("compare")
@click.argument("names", nargs=-1, required=True)
@click.option("--html", type=click.Path(path_type=Path), help="Also write a report with figures.")
@storage_option
@json_option
def study_compare(
    names: tuple[str, ...], html: Path | None, storage: str | None, as_json: bool
) -> None:
    """Compare studies by progress, test scores and paired tests."""
    from evomerge_optuna.report.comparison import write_report
    from evomerge_optuna.report.sheets import best_sheets
    from evomerge_optuna.report.tables import comparison_json, comparison_tables
    from evomerge_optuna.results.compare import compare
    from evomerge_optuna.study.studies import open_study

    store = open_to_read(storage)
    studies = [open_study(store, name) for name in dict.fromkeys(names)]
    comparison = compare(studies)
    if as_json:
        print_result(comparison_json(comparison))
    else:
        for table in comparison_tables(comparison):
            print_result(table)
    if html is not None:
        try:
            sheets = [sheet for study in studies for sheet in best_sheets(study.as_read())]
            write_report(comparison, html, sheets)
        except OSError as error:
            raise EvomergeError(f"{html}: cannot be written: {error.strerror}") from error
        click.echo(f"The report is in {html}", err=True)


@click.command("report")
@click.argument("name")
@click.argument("html", type=click.Path(path_type=Path))
@storage_option
def study_report(name: str, html: Path, storage: str | None) -> None:
    """Write a study as one HTML page, to be sent to somebody.

    It has scores, recipe, figures, answers or pictures, and how to reproduce them.
    """
    from evomerge_optuna.report.study_page import write_study_page
    from evomerge_optuna.study.studies import open_study

    write_study_page(open_study(open_to_read(storage), name), html)
    click.echo(f"The report is in {html}")


@click.command("export")
@click.argument("name")
@click.argument("out", type=click.Path(path_type=Path))
@trial_option
@click.option("--merged", is_flag=True, help="Merge an adapter into its base model.")
@click.option(
    "--single-file",
    is_flag=True,
    help="Also write a pipeline of SD 1.5 or SDXL as one .safetensors file.",
)
@storage_option
def study_export(
    name: str, out: Path, trial: str, merged: bool, single_file: bool, storage: str | None
) -> None:
    """Write the model of a trial to the new folder OUT.

    Of a study of adapters that is an adapter.
    """
    from evomerge_optuna.report.export import export
    from evomerge_optuna.report.outcome import choice_remark
    from evomerge_optuna.results.chosen_trial import find_trial
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(open_storage(storage), name).as_read()
    chosen = find_trial(merge_study, trial)
    digest = export(merge_study, chosen, out, say, merged=merged, single_file=single_file)
    click.echo(f"Exported trial {chosen.number} to {out} (sha256 {digest[:12]}, as scored)")
    if remark := choice_remark(merge_study, trial):
        say(remark)


@click.command("push")
@click.argument("name")
@click.argument("repository", metavar="USER/REPOSITORY")
@trial_option
@click.option("--public", is_flag=True, help="Let everybody see a repository that is made now.")
@storage_option
def study_push(name: str, repository: str, trial: str, public: bool, storage: str | None) -> None:
    """Export the model of a trial to a private repository of the Hugging Face hub.

    The token is read from HF_TOKEN, or is that of `hf auth login`.
    """
    from evomerge_optuna.report.outcome import choice_remark
    from evomerge_optuna.report.push import push
    from evomerge_optuna.results.chosen_trial import find_trial
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(open_storage(storage), name).as_read()
    chosen = find_trial(merge_study, trial)
    address = push(merge_study, chosen, repository, public=public, say=say)
    click.echo(f"Trial {chosen.number} is at {address}")
    if remark := choice_remark(merge_study, trial):
        say(remark)


@click.command("figure")
@click.argument("name")
@trial_option
@storage_option
def study_figure(name: str, trial: str, storage: str | None) -> None:
    """Attach a figure of a trial's layer path to the study."""
    from evomerge_optuna.report.dashboard import attach_path
    from evomerge_optuna.results.chosen_trial import find_trial
    from evomerge_optuna.study.studies import open_study

    merge_study = open_study(open_storage(storage), name).as_read()
    chosen = find_trial(merge_study, trial)
    file = attach_path(merge_study, chosen)
    click.echo(f"Attached {file} to study {name}; look at it with: evomerge-optuna dashboard")
