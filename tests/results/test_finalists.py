"""The race among finalists on synthetic scores: what it costs, and how often it finds the best.

Covers study.quarters, too.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.results.finalists import Finalist, standing
from evomerge_optuna.study.quarters import QUARTERS, Part

gains = st.floats(-1, 1) | st.just(-math.inf)
some_finalists = st.lists(st.tuples(gains, st.tuples(*[gains] * QUARTERS)), min_size=1, max_size=20)


@dataclass
class Race:
    """Scores finalists as `study test` does, on made-up scores of quarters with `size` problems."""

    search: list[Part]
    dev: list[list[float]]  # by finalist and quarter
    size: int = 50
    known: dict[int, int] = field(default_factory=dict)  # quarters by finalist
    problems: int = 0

    def finalists(self) -> list[Finalist]:
        scored = [
            tuple((gain, float(self.size)) for gain in own[: self.known.get(i, 0)])
            for i, own in enumerate(self.dev)
        ]
        return [Finalist(s, d) for s, d in zip(self.search, scored, strict=True)]

    def winner(self) -> int:
        while (now := standing(self.finalists())).winner is None:
            assert now.lacking
            for place in now.lacking:
                self.problems += self.size * (now.quarters - self.known.get(place, 0))
                self.known[place] = now.quarters
        return now.winner


def race_of(given: list[tuple[float, tuple[float, ...]]]) -> Race:
    ranked = sorted(given, key=lambda one: -one[0])
    return Race([(search, 200.0) for search, _ in ranked], [list(dev) for _, dev in ranked])


@given(some_finalists)
def test_it_ends_with_a_finalist_scored_on_all_of_dev(
    given: list[tuple[float, tuple[float, ...]]],
) -> None:
    race = race_of(given)
    winner = race.winner()
    assert race.known[winner] == QUARTERS
    scored = race.finalists()
    through = [one for i, one in enumerate(scored) if race.known[i] == QUARTERS]
    assert scored[winner].gain(QUARTERS) == max(one.gain(QUARTERS) for one in through)
    assert standing(scored).lacking == ()


@given(some_finalists, st.integers(0, 19))
def test_who_is_better_everywhere_wins(
    given: list[tuple[float, tuple[float, ...]]], which: int
) -> None:
    given[which % len(given)] = (2.0, (2.0,) * QUARTERS)
    assert race_of(given).winner() == 0


@given(some_finalists, st.data())
def test_what_is_scored_already_changes_nothing_but_the_cost(
    given: list[tuple[float, tuple[float, ...]]], data: st.DataObject
) -> None:
    fresh, resumed = race_of(given), race_of(given)
    for place in range(len(given)):
        resumed.known[place] = data.draw(st.integers(0, QUARTERS))
    assert resumed.winner() == fresh.winner()
    assert resumed.problems <= fresh.problems


def test_eight_cost_as_many_dev_problems_as_four_scored_whole() -> None:
    race = race_of([(0.0, (0.0,) * QUARTERS)] * 8)
    assert race.winner() == 0  # of equals the first
    assert race.problems == 4 * QUARTERS * race.size
    assert sorted(race.known.values()) == [1, 1, 1, 1, 2, 2, 4, 4]


def test_it_chooses_better_than_five_whole_devs_do_for_fewer_problems() -> None:
    """Trials with abilities spread as in a search's end, on problems of different difficulty."""
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"race": [], "five": [], "search": []}
    for _ in range(300):
        ability = rng.normal(0, 0.1, 60)

        def answers(n: int, ability: np.ndarray = ability) -> np.ndarray:
            difficulty = rng.normal(0.3, 1, n)
            return (ability[:, None] + difficulty + rng.normal(0, 0.7, (len(ability), n))) > 0

        search, dev = answers(200).mean(axis=1), answers(200)
        ranked = np.argsort(-search, kind="stable")
        five = ranked[:5][dev[ranked[:5]].mean(axis=1).argmax()]
        eight = ranked[:8]
        quarters = dev[eight].reshape(8, QUARTERS, 50).mean(axis=2)
        race = Race([(float(search[i]), 200.0) for i in eight], quarters.tolist())
        found["race"].append(ability[eight[race.winner()]])
        found["five"].append(ability[five])
        found["search"].append(ability[ranked[0]])
        assert race.problems < 5 * 200
    means = {rule: float(np.mean(abilities)) for rule, abilities in found.items()}
    assert means["race"] > means["five"] > means["search"]
