"""Commands about models outside of studies: `evaluate`, `stack import`, `zoo build`."""

from pathlib import Path

import click

from evomerge_optuna.cli.options import code_option, json_option, open_storage, storage_option
from evomerge_optuna.cli.output import print_result, say


@click.command("build")
def zoo_build() -> None:
    """Write the zoo's models to folders, and print where."""
    from evomerge_optuna.models.catalog import local_folder
    from evomerge_optuna.models.sources.zoo import ZOO_MODELS

    for model in ZOO_MODELS:
        click.echo(f"{model:14} {local_folder(model)}")


@click.command()
@click.argument("model")
@click.option(
    "--task",
    metavar="SPEC_OR_NAME",
    required=True,
    help="Use the tasks of a spec or a study.",
)
@click.option(
    "--split", default="test", show_default=True, type=click.Choice(["search", "dev", "test"])
)
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write the answers to FILE, as JSON lines.",
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
    """Score a model (a folder, a hub id or zoo:NAME) on the tasks of a spec or a study."""
    from evomerge_optuna.models.catalog import check_exists
    from evomerge_optuna.ready import allow_code_of
    from evomerge_optuna.report.answers import check_answers_file, write_answers
    from evomerge_optuna.report.tables import evaluation_json, evaluation_table
    from evomerge_optuna.scoring import score_checkpoint
    from evomerge_optuna.spec import is_spec_file, load_spec
    from evomerge_optuna.study.studies import open_study

    is_file = is_spec_file(task)
    if is_file:
        spec, day = load_spec(Path(task)), None
    else:
        opened = open_study(open_storage(storage), task)
        spec, day = opened.spec, opened.day
    if is_file or allow_code:
        allow_code_of(spec)
    if answers is not None:
        for line in check_answers_file(answers, spec):
            say(line)
    check_exists(model, "MODEL")
    evaluation = score_checkpoint(model, spec, split, day)
    for remark in evaluation.remarks.values():
        say(remark)
    if answers is not None:
        write_answers(answers, model, spec, evaluation)
    if as_json:
        print_result(evaluation_json(model, evaluation))
    else:
        print_result(evaluation_table(model, spec, evaluation))


@click.command("import")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def stack_import(model: Path, out: Path) -> None:
    """Write a DFS model from the paper's release as an ordinary checkpoint in folder OUT."""
    from evomerge_optuna.merging.released import import_released

    recipe = import_released(model, out)
    click.echo(f"Folded {len(recipe.steps)} steps of {model} into {out}")
