"""A trial that waits for a person's score, given on its page in optuna-dashboard.

The pictures are attached to the running trial. The page shows a form, and what the person chooses
there becomes an attribute of the trial, which its worker looks for.
"""

import math
import time
from collections.abc import Callable

import optuna

from evomerge_optuna.evaluation.person import Question
from evomerge_optuna.spec import HumanScorer, ImageTask, StudySpec
from evomerge_optuna.store.optuna_internals import stored_trial
from evomerge_optuna.study.schema import HUMAN, RECIPE, REPEATS
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.study.trials import Trials

_POLL = 1.0  # seconds between two looks at the trial's attributes


class TrialPage:
    """The page of a running trial, on which a person is asked.

    Args:
        before: the study's trials as they were when this one was taken.
        say: is given a line about what the trial waits for.
    """

    def __init__(
        self,
        merge_study: MergeStudy,
        trial: optuna.Trial,
        before: Trials,
        say: Callable[[str], None],
    ) -> None:
        self._study = merge_study
        self._trial = trial
        self._before = before
        self._say = say

    def ask(self, question: Question) -> float:
        """The person's score, for which it waits as long as it takes.

        Raises:
            UpdateFinishedTrialError: the trial was ended meanwhile, by whomever.
            StorageError: the pictures cannot be stored.
        """
        key = HUMAN + question.target
        if (given := self._given_before(key)) is not None:
            return given
        _register_forms(self._study.study, self._study.spec)
        name = f"pictures-{question.target}.png"
        self._study.store.artifacts.attach(self._trial, name, question.sheet, "image/png")
        number, study = self._trial.number, self._study.name
        self._say(
            f"trial {number} waits for your score {question.target}: look at its pictures and "
            f"choose one in the dashboard, study '{study}', trial {number} "
            "(evomerge-optuna dashboard)"
        )
        while (score := self._score(key)) is None:
            time.sleep(_POLL)
        return score

    def _score(self, key: str) -> float | None:
        trial = stored_trial(self._study.study, self._trial)
        if trial.state.is_finished():
            raise optuna.exceptions.UpdateFinishedTrialError(f"trial {trial.number} was ended")
        return _number(trial.user_attrs.get(key))

    def _given_before(self, key: str) -> float | None:
        """The score of the trial that this one repeats: its worker may have died just after it."""
        recipe, attributes = self._trial.user_attrs.get(RECIPE), self._trial.user_attrs
        while REPEATS in attributes:
            attributes = self._before.everything[attributes[REPEATS]].user_attrs
            score = _number(attributes.get(key))
            if score is not None and attributes.get(RECIPE) == recipe:
                return score
        return None


def _register_forms(study: optuna.Study, spec: StudySpec) -> None:
    """The form that the pages of the study's running trials show."""
    # Imported here: it brings sklearn, a second.
    from optuna_dashboard import ChoiceWidget, register_user_attr_form_widgets

    register_user_attr_form_widgets(
        study,
        [
            ChoiceWidget(
                choices=list(scorer.choices),
                values=list(scorer.choices.values()),
                description=f"{target}: {scorer.question}",
                user_attr_key=HUMAN + target,
            )
            for target, scorer in _human_scorers(spec).items()
        ],
    )


def _human_scorers(spec: StudySpec) -> dict[str, HumanScorer]:
    """By their targets, `TASK.SCORER`."""
    return {
        f"{name}.{scorer}": found
        for name, task in spec.tasks.items()
        if isinstance(task, ImageTask)
        for scorer, found in task.human.items()
    }


def _number(value: object) -> float | None:
    """A finite number as the page stores it; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
