"""What the Hugging Face hub reads of a model card: where the model comes from, and its results."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from evomerge_optuna.families import family_of_host
from evomerge_optuna.models.sources import source_of
from evomerge_optuna.report.numbers import show_score, worth_showing
from evomerge_optuna.results.final_scores import stored_final_scores
from evomerge_optuna.spec import DataSource, Generated, LMEvalTask, StudySpec, Task
from evomerge_optuna.study.studies import MergeStudy

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_UNSEEN = "test"  # the search saw search, and dev chose


def card_metadata(
    spec: StudySpec,
    models: Iterable[str],
    name: str = "",
    results: "list[EvalResult] | None" = None,
) -> dict[str, Any]:
    """The front matter of a model card.

    Args:
        models: of which it is made; those that the hub can link are its base models.
        name: the model's, with its results.
    """
    from huggingface_hub import ModelCardData

    languages = sorted(
        {t.language for t in spec.tasks.values() if isinstance(t, Generated) and t.language}
    )
    bases = list(dict.fromkeys(_on_the_hub(models)))
    family = family_of_host(spec.host)
    data = ModelCardData(
        base_model=bases or None,
        base_model_relation="merge",
        language=languages or None,
        library_name=family.engine,
        pipeline_tag=family.pipeline_tag,
        tags=["mergekit", "merge", "evomerge-optuna", spec.method.replace(" ", "-")],
        model_name=name or None,
        eval_results=results or None,
    )
    return dict(data.to_dict())  # type: ignore[no-untyped-call]


def evaluation_results(merge_study: MergeStudy, trial: FrozenTrial) -> "list[EvalResult]":
    """The scores of a trial on test as the hub's results; none where it is not scored there."""
    from huggingface_hub import EvalResult

    spec = merge_study.spec
    *_, own = [None, *stored_final_scores(merge_study, trial)]
    scores = {} if own is None else worth_showing(own.scores.get(_UNSEEN, {}))
    found = []
    for target, score in scores.items():
        name, _, metric = target.partition(".")
        if not math.isfinite(score.value):
            continue
        shown = show_score(score, spec.metric(target)).partition(" ")[2].strip("()")
        found.append(
            EvalResult(
                task_type=family_of_host(spec.host).pipeline_tag,
                metric_type=metric,
                metric_name=f"{metric} (n={score.n}, 95% interval {shown})",
                metric_value=round(score.value, 6),
                **_data_set(name, spec.tasks[name]),
            )
        )
    return found


def _data_set(name: str, task: Task) -> dict[str, Any]:
    """Where the problems come from; of what is no data set of the hub the task's name alone."""
    if isinstance(task, LMEvalTask):
        return {"dataset_type": task.task, "dataset_name": task.task}
    source: DataSource | None = getattr(task.data, _UNSEEN)
    if source is None or not _is_hub_id(source.path):
        return {"dataset_type": name, "dataset_name": name, "dataset_split": _UNSEEN}
    return {
        "dataset_type": source.path,
        "dataset_name": source.path,
        "dataset_config": source.name,
        "dataset_split": source.split,
    }


def _is_hub_id(path: str) -> bool:
    """A data set is one of the hub unless it is here; a file has an ending."""
    return not path.startswith("zoo:") and not Path(path).is_absolute() and path.count("/") == 1


def _on_the_hub(models: Iterable[str]) -> Iterator[str]:
    """Every model and every adapter that the hub can link, each by itself, without a revision."""
    for model in models:
        for part in model.split("+"):
            if source_of(part).is_on_hub(part) and not Path(part).is_absolute():
                yield part.partition("@")[0]
