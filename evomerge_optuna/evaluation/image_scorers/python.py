"""The user's own function of pictures and rows; see `evaluation.user_code`."""

from collections.abc import Sequence

from evomerge_optuna.evaluation.image_scorers.base import Drawn, PictureScorer
from evomerge_optuna.evaluation.user_code import score_rows
from evomerge_optuna.spec.images import FunctionScorer


class OwnFunction(PictureScorer[FunctionScorer]):
    """Hands the pictures and their rows to the user's function."""

    def scores(self, drawn: Sequence[Drawn]) -> list[float]:
        images, rows = [one.image for one in drawn], [dict(one.row) for one in drawn]
        return score_rows(self.spec.function, self.key, rows, images)


SCORER = OwnFunction
