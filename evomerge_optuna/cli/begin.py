"""Commands that write a spec to begin with: `study init`, `study import`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evomerge_optuna.cli.asked import Asker
from evomerge_optuna.cli.output import say
from evomerge_optuna.errors import EvomergeError, Interrupted, UsageError
from evomerge_optuna.proposal.goals import ANY, CLIP, GOALS, IN_A_LANGUAGE, IN_ONE_COLUMN, NONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evomerge_optuna.evaluation.problem import Row
    from evomerge_optuna.proposal.columns import Columns
    from evomerge_optuna.proposal.facts import ModelFacts
    from evomerge_optuna.proposal.inventory import Inventory
    from evomerge_optuna.proposal.proposed import Wishes
    from evomerge_optuna.proposal.sources import Sources
    from evomerge_optuna.spec import StudySpec
    from evomerge_optuna.timed_try import Tried

_MINUTES = 30.0


@click.command("init")
@click.argument("models", nargs=-1)
@click.option("--base", metavar="MODEL", help="The base model; 'none' for a merge without one.")
@click.option("--data", metavar="DATA", help="A file, a folder or a hub id with the problems.")
@click.option("--goal", type=click.Choice(list(GOALS)), help="The type of the task.")
@click.option("--question", metavar="COLUMN", help="Which column of the data has the questions.")
@click.option("--answer", metavar="COLUMN", help="Which column of the data has the answers.")
@click.option("--text", metavar="COLUMN", help="Which column has the texts, or prompts to draw.")
@click.option("--language", metavar="CODE", help="Answers are to be in it, as ja; or 'any'.")
@click.option(
    "--judge",
    metavar="JUDGE",
    help="Who judges pictures: a model of CLIP, 'human', or MODULE:FUNCTION.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help=f"How long the search may take.  [default: {_MINUTES:g}]",
)
@click.option("--name", help="The study's name.")
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [default: NAME.yaml]")
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
@click.option("--no-try", is_flag=True, help="Merge nothing to see how long it takes.")
@click.option("--yes", is_flag=True, help="Ask nothing: take what is proposed.")
def study_init(
    models: tuple[str, ...], overwrite: bool, no_try: bool, yes: bool, **given: Any
) -> None:
    """Write a spec for MODELS and data: asks for what no option says.

    It looks at models and data, also at those in this folder, and proposes all that a spec says. It
    merges the models once and asks the merge, to say how long a search takes here.
    """
    from evomerge_optuna.proposal.proposed import draft_of
    from evomerge_optuna.proposal.written import check_free, spec_of, write
    from evomerge_optuna.timed_try import try_spec

    asker = Asker.on_terminal(yes)
    if given["out"] is not None:
        check_free(given["out"], overwrite)
    wishes, facts, out = _wishes(asker, models, given)
    overwrite = _may_write(asker, out, overwrite)
    minutes = asker.number(given["minutes"], "Minutes of search", _MINUTES)
    draft = draft_of(wishes, facts, str(out))
    spec = spec_of(draft, out)
    tried = None
    if not no_try:
        say("Merging the models once, to see how it goes ...")
        try:
            tried = try_spec(spec, say)
        except Interrupted:
            raise
        except EvomergeError as error:
            kind = UsageError if isinstance(error, UsageError) else EvomergeError
            raise kind(f"{error} (with --no-try the spec is written as it is)") from error
    if tried is not None:
        trials = tried.trials_in(minutes)
        _tell(spec, tried, trials, minutes)
        pace = f"at {_seconds(tried.seconds)} a trial"
        why = f"about {_minutes(tried.seconds * trials)} here, {pace}"
        draft = draft_of(wishes, facts, str(out), trials, why)
        spec_of(draft, out)
    write(draft, out, overwrite)
    click.echo(f"Wrote {out}. Run it with: evomerge-optuna study run {shlex.quote(str(out))}")


def _wishes(
    asker: Asker, models: tuple[str, ...], given: dict[str, Any]
) -> "tuple[Wishes, ModelFacts, Path]":
    """What the options say, and what the user answers to the rest."""
    from evomerge_optuna.proposal.columns import ANSWER, QUESTION, TEXT, columns_of
    from evomerge_optuna.proposal.data import read_data
    from evomerge_optuna.proposal.facts import read_models
    from evomerge_optuna.proposal.inventory import look_around
    from evomerge_optuna.proposal.proposed import Wishes, task_name
    from evomerge_optuna.proposal.splits import split_named
    from evomerge_optuna.proposal.tasks import goal_of, language_in

    here = look_around(Path())
    sources = _sources(asker, models, given["base"], here)
    facts = read_models(sources.by_key)
    files = [file for file in here.data if split_named(Path(file).stem) in (None, "search")]
    name = asker.text(given["data"], "Data", next(iter(files), None), "--data")
    study = given["name"] or f"{task_name(name)}-merge"
    out = Path(given["out"] or f"{study}.yaml")
    folder = out.absolute().parent
    data = read_data(name, folder)
    said = {part: given[part] for part in (QUESTION, ANSWER, TEXT) if given[part] is not None}
    columns = columns_of(data.rows, said)
    goal = asker.text(
        given["goal"], "What the merge is to do", goal_of(columns, facts), "--goal", list(GOALS)
    )
    columns = _columns(asker, data.rows, said, goal)
    language = None
    if goal in IN_A_LANGUAGE:
        proposal = language_in(data.rows, columns) or ANY
        language = _known(asker.text(given["language"], "Language", proposal, "--language"))
    judge = CLIP
    if goal == "image":
        judge = asker.text(given["judge"], "Judge", next(iter(here.judges), CLIP), "--judge")
    wishes = Wishes(study, sources.seen_from(folder), data, columns, goal, language, judge)
    return wishes, facts, out


def _columns(asker: Asker, rows: "Sequence[Row]", said: dict[str, str], goal: str) -> "Columns":
    """The columns of the data, after a question for each that its name does not tell."""
    from evomerge_optuna.proposal.columns import ANSWER, QUESTION, TEXT, columns_of

    for part in (TEXT,) if goal in IN_ONE_COLUMN else (QUESTION, ANSWER):
        columns = columns_of(rows, said)
        if part in columns.guesses and asker.is_there:
            what = f"Column with the {part}s"
            said[part] = asker.text(None, what, columns.guessed(part), f"--{part}", columns.texts)
    return columns_of(rows, said)


def _sources(
    asker: Asker, models: tuple[str, ...], base: str | None, here: "Inventory"
) -> "Sources":
    from evomerge_optuna.proposal.base_model import Base
    from evomerge_optuna.proposal.sources import proposed_base, proposed_sources, sources_of

    chosen = list(models)
    if not chosen:
        found = proposed_sources(here)
        proposal = shlex.join(found) if found else None
        chosen = shlex.split(asker.text(None, "Models to merge", proposal, "MODELS"))
    guess = None if base is not None else proposed_base(chosen, here)
    if guess is not None:
        say(f"base model: {guess.model}, {guess.why}")
    named = asker.text(base, "Base model", guess.model if guess else NONE, "--base")
    if guess is None or named != guess.model:
        guess = None if named == NONE else Base(named, "")
    return sources_of(chosen, guess, here)


def _known(language: str) -> str | None:
    from evomerge_optuna.evaluation.language import known_languages

    if language == ANY:
        return None
    if language not in known_languages():
        raise UsageError(f"--language: lid.176 does not know '{language}'; write a code such as ja")
    return language


def _may_write(asker: Asker, out: Path, overwrite: bool) -> bool:
    """May a file that is there be written over?"""
    from evomerge_optuna.proposal.written import check_free

    if out.exists() and not overwrite and asker.agrees(f"{out} exists. Write over it?"):
        return True
    check_free(out, overwrite)
    return overwrite


def _tell(spec: "StudySpec", tried: "Tried", trials: int, minutes: float) -> None:
    from evomerge_optuna.report.numbers import show_score
    from evomerge_optuna.timed_try import FEWEST, MOST

    scores = (f"{n} {show_score(s, spec.metric(n))}" for n, s in tried.scores.items())
    of = f"{tried.asked} of {tried.problems}" if tried.asked < tried.problems else tried.problems
    say(f"the uniform merge, on {of} problems: {', '.join(scores)}")
    if (example := tried.example()) is not None:
        say(example)
    say(
        f"a trial takes about {_seconds(tried.seconds)} here: {_seconds(tried.build)} to merge, "
        f"{_seconds(tried.ask)} for {tried.problems} problems"
    )
    whole = _minutes(tried.seconds * trials)
    if trials in (FEWEST, MOST):
        bound = "least" if trials == FEWEST else "most"
        say(f"{trials} trials, the {bound} that are proposed, take about {whole}")
    else:
        say(f"{minutes:g} minutes have time for about {trials} trials")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:,.0f} s"


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option(
    "--include-path",
    metavar="FOLDER",
    help="Look for tasks of lm-evaluation-harness here, too, as --task-search-path does.",
)
@click.option("--overwrite", is_flag=True, help="Write over a file that is there.")
def study_import(file: Path, out: Path | None, include_path: str | None, overwrite: bool) -> None:
    """Write a configuration of mergekit-evolve as a spec, OUT.

    It says what of the configuration has no counterpart. The default of OUT is FILE-study.yaml,
    in the current folder.
    """
    from evomerge_optuna.proposal.mergekit_evolve import imported
    from evomerge_optuna.proposal.names import plain
    from evomerge_optuna.proposal.written import check_free, spec_of, write
    from evomerge_optuna.spec import read_mapping

    study = plain(file.stem)
    place = out or Path(f"{study}-study.yaml")
    check_free(place, overwrite)
    content = read_mapping(file, "a configuration of mergekit-evolve has the keys genome and tasks")
    folder = place.absolute().parent
    draft, lost = imported(content, str(file), study, folder, include_path)
    spec_of(draft, place)
    write(draft, place, overwrite)
    for line in lost:
        say(line)
    click.echo(f"Wrote {place}. Run it with: evomerge-optuna study run {place}")
