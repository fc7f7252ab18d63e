"""The prompts of a study as its candidates and sources read them: the same as long as it lives."""

from contextlib import suppress
from datetime import date

from evomerge_optuna.errors import SpecError, StudyChangedError
from evomerge_optuna.evaluation.reading import (
    NamedReader,
    check_chat_args,
    read_prompts,
    reader_of,
)
from evomerge_optuna.evaluation.tasks import Tasks, runners
from evomerge_optuna.merging.tokenizer import (
    give_chat_template,
    model_of_tokenizer,
    reader_of_candidate,
)
from evomerge_optuna.spaces.space import SearchSpace
from evomerge_optuna.spec import SPLITS, StudySpec
from evomerge_optuna.study.schema import PROMPTS
from evomerge_optuna.study.studies import MergeStudy, changed_versions


def prompts_of(
    spec: StudySpec, space: SearchSpace, tasks: Tasks, day: date | None
) -> dict[str, str]:
    """SHA-256 of what candidates and sources are given, by task, split and model.

    Raises:
        SpecError: see `read_prompts` and `check_chat_args`.
        CandidateError: mergekit refuses the baseline of the search space.
    """
    readers = _readers(spec, space)
    check_chat_args(tasks, readers)
    return read_prompts(tasks, readers, day, SPLITS)


def check_prompts_unchanged(stored: MergeStudy) -> None:
    """A study is continued only with the prompts it began with; files that changed are told before.

    Raises:
        StudyChangedError: naming every split that is read otherwise.
    """
    before = stored.attributes().get(PROMPTS)
    if before is None:
        return  # of an earlier version
    now = prompts_of(stored.spec, stored.space, runners(stored.spec.tasks), stored.day)
    changed = [
        f"{place}: sha256 {before[place][:12]} -> {now[place][:12]}"
        for place in before
        if place in now and before[place] != now[place]
    ]
    if changed:
        versions = ", ".join(changed_versions(stored)) or "of the versions it was begun with"
        raise StudyChangedError(
            f"study '{stored.name}' was begun with other prompts ({'; '.join(changed)}), though "
            f"with the same files ({versions}); put the old versions back, or give the study a "
            "new name"
        )


def _readers(spec: StudySpec, space: SearchSpace) -> list[NamedReader]:
    """The candidates, which all have one tokenizer, and the sources that `study test` scores."""
    recipe = space.recipe(space.baseline())
    own = reader_of_candidate(recipe)
    model = model_of_tokenizer(recipe)
    keys = {name: key for key, name in spec.model_ids().items()}
    key, name = ("merge", "its tokenizer") if model is None else (keys[model], model)
    found = [NamedReader(key, name, own)]
    for source in spec.source_ids().items():
        with suppress(SpecError):  # without a tokenizer of its own it has that of the first model
            found.append(reader_of(*source))
            give_chat_template(found[-1].reader.tokenizer, lambda: own.tokenizer)
    return found
