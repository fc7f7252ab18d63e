"""The random numbers of DARE's masks, which are the same in every trial of a study."""

from dataclasses import dataclass

import torch

from evomerge_optuna.merging.memory import Budget, size_of


@dataclass(frozen=True)
class _Drawn:
    position: int
    numbers: torch.Tensor
    state_after: torch.Tensor


class Uniforms:
    """Numbers in [0, 1) from torch's own generator, drawn once and kept.

    `torch.bernoulli(density)` keeps an element where its number is below the density. The seed is
    the recipe's, so an element's number depends only on how many are drawn before it in the same
    merge. The generator is always left as if all had been drawn, for those who use it next.

    Example:
        >>> uniforms = Uniforms(Budget(limit=1000))
        >>> _ = torch.manual_seed(0)
        >>> uniforms.restart()
        >>> kept = uniforms.draw("weight", 4) < 0.5
        >>> _ = torch.manual_seed(0)
        >>> torch.equal(kept, torch.bernoulli(torch.full((4,), 0.5)).bool())
        True
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._drawn: dict[str, _Drawn] = {}
        self._refused: set[str] = set()
        self._position = 0

    def restart(self) -> None:
        """Begins a merge; torch's generator has just been seeded."""
        self._position = 0

    def draw(self, key: str, count: int) -> torch.Tensor:
        """The next `count` numbers, float32; `key` names them from merge to merge."""
        known = self._drawn.get(key)
        if known is not None and known.position == self._position:
            numbers = known.numbers
            torch.set_rng_state(known.state_after)
        else:
            # Elsewhere than before when a density of 1 has spared an earlier draw.
            numbers = torch.rand(count, dtype=torch.float32)
            if known is not None or self._may_keep(key, numbers):
                self._drawn[key] = _Drawn(self._position, numbers, torch.get_rng_state())
        self._position += count
        return numbers

    def _may_keep(self, key: str, numbers: torch.Tensor) -> bool:
        if key in self._refused:
            return False
        if not self._budget.fits(size_of(numbers)):
            self._refused.add(key)
            return False
        return True
