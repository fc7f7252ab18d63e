"""Data-flow space: which layers a token passes through, and how they are scaled (section 3.2)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.recipe import Recipe
from evomerge_optuna.recipes.stack import StackRecipe, Step
from evomerge_optuna.spaces.space import SearchSpace, Values
from evomerge_optuna.spaces.stacks_by_hand import Slot, stacks_by_hand
from evomerge_optuna.spec import Choices, Dimension, Range, StackSpec

_SPREAD = 1.0  # an indicator's range on either side of its mean
_DEVIATION = 2 * _SPREAD / 6  # with which CMA-ES begins
SCALE = Range(low=0.5, high=1.5)
THETA = Range(low=-2.0, high=2.0)
IN_OR_OUT = Choices((False, True))
HIDDEN = 4  # units of pi_theta
_THETAS = 5 * HIDDEN + 1


@dataclass(frozen=True)
class StackSpace(SearchSpace):
    """Turns an Optuna trial into a `StackRecipe`.

    The slots are the layers of all models in order, repeated r times (T = M r). A slot with an
    indicator above 0 is in the path; or one that is true, where the sampler does better with
    choices (`binary`). Parameters are named `layer.NUMBER.ALIAS-LAYER`; scales are
    `scale.NUMBER`, `scale.FROM.TO` or `theta.NUMBER`. Anchors, the first and the last layers of
    the first model, are always the path's first and last.
    """

    stack: StackSpec
    models: dict[str, str]  # by alias, in order
    depths: dict[str, int]  # layers of each model, by alias
    dtype: str | None = None  # in which the models run, where not in their own
    merges: dict[str, MergeRecipe] = field(default_factory=dict)  # of models that are merges
    host: str | None = None  # the model that keeps everything but the stacked part
    binary: bool = False  # are indicators true or false, not numbers?
    seed: int = 0  # decides the order of the starts
    baseline_name = "identity path"
    fewer = "stack.scale: network has 21 for all scales"

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The slots that are searched, in the order of the path."""
        k, depth = self.stack.anchors, self.depths[self._first]
        anchors = {Slot(self._first, n) for n in (*range(k), *range(depth - k, depth))}
        every = self._layers()
        once = [slot for slot in every if slot not in anchors]
        return (*once, *(every * (self.stack.repeats - 1)))

    def ranges(self) -> dict[str, Dimension]:
        """Every parameter the sampler searches, by name, in a fixed order.

        CMA-ES begins in the middle of the ranges with a deviation of a sixth of them. The middle
        is the identity path, every indicator so far from 0 that of T candidates one flips it.
        """
        scales = dict.fromkeys(self._scales(), THETA if self._kind == "network" else SCALE)
        if self.binary:
            return {**dict.fromkeys(self._indicators(), IN_OR_OUT), **scales}
        away = -NormalDist().inv_cdf(1 / max(3, len(self.slots))) * _DEVIATION
        away = min(away, 0.9 * _SPREAD)  # every range has both signs
        return {
            **{
                name: Range(low=mean - _SPREAD, high=mean + _SPREAD)
                for name, mean in self._identity(away).items()
            },
            **scales,
        }

    def baseline(self) -> Values:
        """The identity path: all of the first model, nothing of the others, unscaled."""
        unscaled = 0.0 if self._kind == "network" else 1.0
        identity = self._flags(self._own())
        return {**identity, **dict.fromkeys(self._scales(), unscaled)}

    def sources(self) -> dict[str, Values]:
        """All layers of each model but the first, which the baseline is."""
        _, *others = self.models
        paths = {alias: [Slot(alias, n) for n in range(self.depths[alias])] for alias in others}
        return {
            alias: self.baseline() | indicators
            for alias, path in paths.items()
            if (indicators := self.indicators_of(path)) is not None
        }

    def values_of(self, parameters: Values, recipe: Recipe) -> Values | None:
        """Where another study's stack lies in this space; see `SearchSpace.values_of`."""
        aliases = {model: alias for alias, model in self.models.items()}
        if not isinstance(recipe, StackRecipe) or not set(recipe.models()) <= aliases.keys():
            return None
        indicators = self.indicators_of([Slot(aliases[s.model], s.layer) for s in recipe.steps])
        if indicators is None:
            return None
        ranges = self.ranges()
        scales = {n: ranges[n].clip(parameters[n]) for n in self._scales() if n in parameters}
        return self.baseline() | scales | indicators

    def layers_of(self) -> tuple[str, ...]:
        """The models whose layers a recipe may have."""
        return tuple(self.models.values())

    def indicators_of(self, path: Sequence[Slot]) -> Values | None:
        """Indicators that give this path; None where its layers do not fit into the slots."""
        k, depth = self.stack.anchors, self.depths[self._first]
        ends = [Slot(self._first, n) for n in (*range(k), *range(depth - k, depth))]
        if [*path[:k], *path[len(path) - k :]] != ends:
            return None
        wanted = list(path[k : len(path) - k])
        taken = []
        for slot in self.slots:
            taken.append(bool(wanted) and slot == wanted[0])
            if taken[-1]:
                del wanted[0]
        if wanted:
            return None
        return self._flags(taken)

    def starts(self) -> dict[str, Values]:
        """Stacks that people try by hand, of those in this space, unscaled, by name."""
        depths = {alias: self.depths[alias] for alias in self.models}
        own, found = self.baseline(), dict[str, Values]()
        seen = {self.recipe(own).digest()}
        for name, path in stacks_by_hand(depths, self.seed):
            flags = self.indicators_of(path)
            if flags is None or (digest := self.recipe(own | flags).digest()) in seen:
                continue
            seen.add(digest)
            found[name] = own | flags
        return found

    def moved(self, parameters: Values) -> Values:
        """Another study's parameters of the same names, each moved into its range."""
        ranges, names = self.ranges(), self._indicators()
        if self.binary or isinstance(parameters[names[0]], bool):
            flags = self._flags(float(parameters[name]) > 0 for name in names)
        else:
            flags = {name: ranges[name].clip(parameters[name]) for name in names}
        return flags | {name: ranges[name].clip(parameters[name]) for name in self._scales()}

    def _flags(self, taken: Iterable[bool]) -> Values:
        """Indicators of the slots that are in the path."""
        if self.binary:
            return dict(zip(self._indicators(), taken, strict=True))
        ranges, on = self.ranges(), _SPREAD / 2
        return {
            name: ranges[name].clip(on if is_in else -on)
            for name, is_in in zip(self._indicators(), taken, strict=True)
        }

    def recipe(self, values: Values) -> StackRecipe:
        """The recipe of these parameter values."""
        path = self._path([float(values[name]) for name in self._indicators()])
        scales = self._path_scales(path, values)
        steps = tuple(
            Step(model=self.models[slot.alias], layer=slot.layer, scale=scale)
            for (_, slot), scale in zip(path, scales, strict=True)
        )
        head = steps[-1].model if self.stack.head == "last" else self.models[self._first]
        return StackRecipe(
            embeddings=self.models[self._first],
            steps=steps,
            head=head,
            dtype=self.dtype,
            merges=self.merges,
            host=self.host,
        )

    def _path(self, indicators: list[float]) -> list[tuple[int, Slot]]:
        """The layers in the path with the numbers of their slots; anchors count as -1."""
        k, depth = self.stack.anchors, self.depths[self._first]
        slots, most = self.slots, self.stack.max_layers
        limit = len(indicators) if most is None else most - 2 * k
        # Of more choices than may be in the path, those of the identity path are.
        own = self._own() if self.binary else [False] * len(indicators)
        ranked = sorted(range(len(indicators)), key=lambda t: (-indicators[t], not own[t]))
        wanted = max(sum(value > 0 for value in indicators), 0 if k else 1)
        kept = sorted(ranked[: min(wanted, limit)])
        return [
            *((-1, Slot(self._first, layer)) for layer in range(k)),
            *((t, slots[t]) for t in kept),
            *((-1, Slot(self._first, layer)) for layer in range(depth - k, depth)),
        ]

    def _path_scales(self, path: list[tuple[int, Slot]], values: Values) -> Iterator[float]:
        """What the residual stream is multiplied by before each layer; 1 before the first."""
        numbers = {slot: number for number, slot in enumerate(self._layers())}
        before: int | None = None
        for place, (t, slot) in enumerate(path):
            to = numbers[slot]
            if before is None or self._kind == "none":
                yield 1.0
            elif self._kind == "step":
                yield 1.0 if t < 0 else float(values[_scale_name(t)])
            elif self._kind == "matrix":
                yield float(values[_pair_name(before, to)])
            else:
                theta = [float(values[name]) for name in self._scales()]
                yield network_scale(
                    theta, before / len(numbers), to / len(numbers), place / self._most
                )
            before = to

    @property
    def _kind(self) -> str:
        return str(self.stack.scale)

    @property
    def _first(self) -> str:
        return next(iter(self.models))

    @property
    def _most(self) -> int:
        return len(self.slots) + 2 * self.stack.anchors

    def _layers(self) -> list[Slot]:
        """The M layers of all models in order."""
        return [Slot(alias, n) for alias in self.models for n in range(self.depths[alias])]

    def _indicators(self) -> list[str]:
        return [
            f"layer.{t:0{len(str(len(self.slots)))}}.{slot.alias}-{slot.layer}"
            for t, slot in enumerate(self.slots)
        ]

    def _scales(self) -> list[str]:
        if self._kind == "none":
            return []
        if self._kind == "step":
            return [_scale_name(t) for t in range(len(self.slots))]
        if self._kind == "matrix":
            count = len(self._layers())
            # Once over and without anchors, a layer is only followed by later ones.
            any_order = self.stack.repeats > 1 or self.stack.anchors > 0
            return [
                _pair_name(i, j) for i in range(count) for j in range(count) if any_order or i < j
            ]
        return [f"theta.{number:02}" for number in range(_THETAS)]

    def _identity(self, away: float) -> dict[str, float]:
        """Indicators of the identity path, all at this distance from 0."""
        return {
            name: away if own else -away
            for name, own in zip(self._indicators(), self._own(), strict=True)
        }

    def _own(self) -> list[bool]:
        """Which slots the identity path has."""
        once = len(self._layers()) - 2 * self.stack.anchors
        return [t < once and slot.alias == self._first for t, slot in enumerate(self.slots)]


def network_scale(theta: list[float], source: float, target: float, time: float) -> float:
    """pi_theta(i, j, t), the scale between layer i and layer j at step t (paper, section 3.2).

    A network of one hidden layer with tanh; all arguments lie in 0..1. Zero weights give scale 1.
    """
    weights = np.asarray(theta)
    inner, bias, outer = (
        weights[: 3 * HIDDEN],
        weights[3 * HIDDEN : 4 * HIDDEN],
        weights[4 * HIDDEN :],
    )
    features = 2 * np.array([source, target, time]) - 1
    hidden = np.tanh(inner.reshape(HIDDEN, 3) @ features + bias)
    span = (SCALE.high - SCALE.low) / 2
    return float(1 + span * np.tanh(outer[:HIDDEN] @ hidden + outer[HIDDEN]))


def _scale_name(t: int) -> str:
    return f"scale.{t}"


def _pair_name(source: int, target: int) -> str:
    return f"scale.{source}.{target}"
