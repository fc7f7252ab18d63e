"""The tasks of a mergekit-evolve configuration, and what their weights make of the objectives."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.proposal.names import plain, unlike

if TYPE_CHECKING:
    from mergekit.evo.config import EvolMergeConfiguration


@dataclass
class Measured:
    """Tasks and objectives as a spec has them.

    Attributes:
        lost: lines on what has no counterpart.
        notes: comments at the end of lines, by the key's path.
        offers: lines of comment after a part, by its path.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    objectives: list[dict[str, str]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    offers: dict[str, tuple[str, ...]] = field(default_factory=dict)


def measured(
    configuration: "EvolMergeConfiguration", chat: bool, include_path: str | None, file: str
) -> Measured:
    """What is scored, and what of it is an objective: a weight above 0 maximizes, one below 0
    minimizes, and what has none is scored alone.

    mergekit-evolve maximizes the weighted sum. Whatever the weights, its best merge is on the
    Pareto front of the tasks' scores, which is searched instead. The heaviest task is the first
    objective.

    Args:
        chat: prompts are chats.
        include_path: a folder with tasks, as the spec has it.
        file: where the configuration was read, for messages.

    Raises:
        SpecError: no task has a weight.
    """
    found = Measured()
    weights: dict[tuple[str, str], float] = {}
    for task in configuration.tasks:
        of = task.name, task.metric
        weights[of] = weights.get(of, 0.0) + task.weight
    targets: dict[str, float] = {}
    for (task_name, measure), weight in weights.items():
        metric, _, filter_ = measure.partition(",")
        name = plain(task_name)
        if name in found.tasks:
            name = unlike(f"{name}_{plain(metric)}", found.tasks)
        found.tasks[name] = _task(configuration, task_name, metric, filter_, chat, include_path)
        found.offers[f"tasks.{name}.data"] = _more_data(configuration.limit)
        targets[f"{name}.{metric}"] = weight
    ordered = sorted((t for t in targets if targets[t]), key=lambda t: -abs(targets[t]))
    if not ordered:
        raise SpecError(f"{file}: tasks: no task has a weight, so there is nothing to search for")
    for target in ordered:
        direction = "maximize" if targets[target] > 0 else "minimize"
        found.objectives.append({direction: target})
    _tell_weights(found, {target: targets[target] for target in ordered})
    return found


def _task(
    configuration: "EvolMergeConfiguration",
    name: str,
    metric: str,
    filter_: str,
    chat: bool,
    include_path: str | None,
) -> dict[str, Any]:
    limit, shots = configuration.limit, configuration.num_fewshot
    return {
        "type": "lm_eval",
        "task": name,
        **({} if include_path is None else {"include_path": include_path}),
        "data": {"search": "[:]" if limit is None else f"[:{limit}]"},
        "metric": metric,
        **({} if filter_ in ("", "none") else {"filter": filter_}),
        **({} if shots is None else {"num_fewshot": shots}),
        **({"chat": True} if chat else {}),
    }


def _more_data(limit: int | None) -> tuple[str, ...]:
    if limit is None:
        return (
            "To keep documents that the search never sees, divide them:",
            'search: "[:200]"',
            'dev: "[200:300]"   # chooses among the best',
            'test: "[300:]"     # for study test',
        )
    return (f'test: "[{limit}:]"  # documents that the search never sees, for study test',)


def _tell_weights(found: Measured, weights: dict[str, float]) -> None:
    if len(weights) > 1:
        words = ", ".join(f"{target} {weight:g}" for target, weight in weights.items())
        found.lost.append(
            f"tasks: the sum by weights ({words}) is no objective here; each task is one, the "
            "heaviest first, and the front of the best merges is searched"
        )
    elif any(abs(weight) != 1 for weight in weights.values()):
        found.lost.append("tasks: with one task its weight changes nothing; left out")
