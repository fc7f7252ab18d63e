"""The volume that a Pareto front dominates, up to a reference point."""

from collections.abc import Sequence

Point = tuple[float, ...]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume of what the points dominate, all values to be minimized.

    By slices along the last objective (While et al. 2006, HSO): exact, quick for a front of some
    hundred trials and a few objectives.

    Args:
        reference: a point that bounds the volume; what lies beyond it counts for nothing.
    """
    inside = [p for p in points if all(x < r for x, r in zip(p, reference, strict=True))]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(inside)[0]
    inside.sort(key=lambda point: point[-1])
    ends = [p[-1] for p in inside[1:]] + [reference[-1]]
    return sum(
        (end - point[-1]) * hypervolume([p[:-1] for p in inside[: number + 1]], reference[:-1])
        for number, (point, end) in enumerate(zip(inside, ends, strict=True))
        if end > point[-1]
    )
