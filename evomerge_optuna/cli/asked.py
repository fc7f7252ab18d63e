"""Questions that `study init` asks, each with a proposal that Enter takes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import click

from evomerge_optuna.errors import UsageError


@dataclass(frozen=True)
class Asker:
    """Asks on the terminal what no option says.

    Attributes:
        is_there: somebody answers; else every proposal is taken.
    """

    is_there: bool

    @classmethod
    def on_terminal(cls, yes: bool) -> "Asker":
        """Who asks if there is a terminal, and nobody said `--yes`."""
        return cls(not yes and sys.stdin.isatty() and sys.stderr.isatty())

    def text(
        self,
        given: str | None,
        question: str,
        proposal: str | None,
        option: str,
        choices: Sequence[str] | None = None,
    ) -> str:
        """What an option says, else an answer.

        Args:
            option: that says it, for who cannot be asked.
            choices: what may be answered; None: anything.

        Raises:
            UsageError: nobody is there, and there is no proposal.
        """
        if given is not None:
            return given
        if not self.is_there:
            if proposal is None:
                raise UsageError(f"{question.lower()}: nothing was found; give {option}")
            return proposal
        kind = None if choices is None else click.Choice(choices)
        return str(click.prompt(question, default=proposal, type=kind, err=True))

    def number(self, given: float | None, question: str, proposal: float) -> float:
        """What an option says, else a number above 0 that is answered."""
        if given is not None or not self.is_there:
            return given or proposal
        kind = click.FloatRange(min=0, min_open=True)
        return float(click.prompt(question, default=f"{proposal:g}", type=kind, err=True))

    def agrees(self, question: str) -> bool:
        """Does the user say yes? Nobody says no."""
        return self.is_there and click.confirm(question, default=False, err=True)
