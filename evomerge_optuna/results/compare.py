"""Studies side by side: progress, test scores on the same problems, hypervolume."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evomerge_optuna.errors import UsageError
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.results.chosen_trial import find_trial
from evomerge_optuna.results.final_scores import (
    ModelToScore,
    models_to_score,
    stored_outcomes,
    stored_scores,
)
from evomerge_optuna.results.hypervolume import hypervolume
from evomerge_optuna.results.progress import Progress, progress_of
from evomerge_optuna.spec import Metric, Task
from evomerge_optuna.study.schema import DATA
from evomerge_optuna.study.studies import MergeStudy


@dataclass(frozen=True)
class ScoredModel:
    """A model that `study test` scored: a source, a baseline or a study's chosen trial."""

    name: str
    scores: dict[str, Score]
    marks: str  # a 1 or 0 for each problem of the first objective's task
    problems: str  # what the problems hash to
    task: Task | None  # by which they are asked and scored; a cost has none


@dataclass(frozen=True)
class Paired:
    """Two models on the same problems: those that only one of them gets right.

    `p` is that of the exact binomial test (McNemar's with few pairs), two-sided.
    """

    first: str
    second: str
    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """What `study compare` shows of studies with the same first objective."""

    target: str
    metric: Metric
    progress: dict[str, Progress]
    tested: tuple[ScoredModel, ...]
    paired: tuple[Paired, ...]
    hypervolumes: dict[str, float]


def compare(studies: Sequence[MergeStudy]) -> Comparison:
    """Compares studies; those that `study test` has not scored have no test score.

    Raises:
        UsageError: their first objectives differ.
    """
    studies = [study.as_read() for study in studies]
    targets = {(s.spec.objective.target, s.spec.objective.direction) for s in studies}
    if len(targets) > 1:
        raise UsageError(
            "these studies have no common first objective: "
            + ", ".join(f"{s.name} {s.spec.objective.target}" for s in studies)
        )
    ((target, _),) = targets
    best = [
        replace(tested, name=f"{s.name} ({tested.name})")
        for s in studies
        if (chosen := _chosen(s)) and (tested := _tested(s, chosen))
    ]
    others = [(s.name, t) for s in studies for c in _others(s) if (t := _tested(s, c))]
    return Comparison(
        target=target,
        metric=studies[0].spec.metric(target),
        progress={study.name: progress_of(study) for study in studies},
        tested=(*_once(others), *best),
        paired=tuple(
            found for i, a in enumerate(best) for b in best[i + 1 :] if (found := pair(a, b))
        ),
        hypervolumes=hypervolumes(studies),
    )


def _once(found: Sequence[tuple[str, ScoredModel]]) -> list[ScoredModel]:
    """Each of the studies' models once; with its study's name where others are called alike."""
    different: list[tuple[str, ScoredModel]] = []
    for study, model in found:
        if not any(_is_same(model, known) for _, known in different):
            different.append((study, model))
    names = Counter(model.name for _, model in different)
    return [
        replace(one, name=f"{study} ({one.name})") if names[one.name] > 1 else one
        for study, one in different
    ]


def _is_same(a: ScoredModel, b: ScoredModel) -> bool:
    """Are they one model, scored alike? Bounds of intervals differ between versions by 1e-16."""
    return replace(a, scores=_rounded(a.scores)) == replace(b, scores=_rounded(b.scores))


def _rounded(scores: dict[str, Score]) -> dict[str, Score]:
    return {
        metric: replace(score, low=round(score.low, 12), high=round(score.high, 12))
        for metric, score in scores.items()
    }


def pair(a: ScoredModel, b: ScoredModel) -> Paired | None:
    """The exact binomial test of two models; None where problems or their scoring differ."""
    from scipy.stats import binomtest  # takes longer to import than all of Optuna

    if (a.problems, a.task) != (b.problems, b.task):
        return None
    if not a.marks or len(a.marks) != len(b.marks):
        return None
    both = list(zip(a.marks, b.marks, strict=True))
    only_a, only_b = both.count(("1", "0")), both.count(("0", "1"))
    p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    return Paired(a.name, b.name, only_a, only_b, float(p))


def hypervolumes(studies: Sequence[MergeStudy]) -> dict[str, float]:
    """The hypervolume of each front of several objectives, from one reference point for all.

    The point is the worst value of each objective among the trials of all fronts. Studies of
    other objectives than the first such study's are left out.
    """
    several = [s for s in studies if len(s.spec.objectives) > 1 and s.front()]
    alike = [s for s in several if s.spec.objectives == several[0].spec.objectives]
    if not alike:
        return {}
    signs = [-objective.sign for objective in alike[0].spec.objectives]  # the least is the best
    fronts = {
        study.name: [
            tuple(sign * value for sign, value in zip(signs, trial.values, strict=True))
            for trial in study.front()
        ]
        for study in alike
    }
    points = [point for front in fronts.values() for point in front]
    worst = tuple(map(max, zip(*points, strict=True)))
    return {name: hypervolume(front, worst) for name, front in fronts.items()}


def _chosen(study: MergeStudy) -> ModelToScore | None:
    try:
        *_, chosen = models_to_score(study, find_trial(study, "best"))
    except UsageError:  # nothing is scored yet, or not on dev
        return None
    return chosen


def _others(study: MergeStudy) -> list[ModelToScore]:
    best = study.best()
    return models_to_score(study, best)[:-1] if best else []


def _tested(study: MergeStudy, entry: ModelToScore) -> ScoredModel | None:
    scores = stored_scores(study, entry).get("test")
    if not scores:
        return None
    task = study.spec.objective.task
    asked = study.spec.tasks.get(task)
    return ScoredModel(
        name=entry.name,
        scores=scores,
        marks=stored_outcomes(study, entry.identity).get("test", {}).get(task, ""),
        problems=study.attributes()[DATA].get(f"tasks.{task}.data.test", ""),
        task=asked and asked.model_copy(update={"data": None}),  # the same may lie elsewhere
    )
