"""The exact score of the zoo's pictures: is everything as the row says?"""

from collections.abc import Sequence

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.image_scorers.base import Drawn, PictureScorer
from evomerge_optuna.spec.images import ZooScorer
from evomerge_optuna.zoo.images.scenes import SIZE

_COLUMNS = ("colour", "shape", "manner")


class AllRight(PictureScorer[ZooScorer]):
    """1 where colour, shape and manner are those of the row, 0 where one is not."""

    def scores(self, drawn: Sequence[Drawn]) -> list[float]:
        import numpy

        from evomerge_optuna.zoo.images.judging import judge

        for one in drawn:
            if missing := [name for name in _COLUMNS if name not in one.row]:
                raise SpecError(
                    f"{self.key}: a row has no column '{missing[0]}'; the scorer zoo reads those "
                    "of zoo:scenes"
                )
            if one.image.size != (SIZE, SIZE):
                raise SpecError(
                    f"{self.key}: a picture has {one.image.width} x {one.image.height} pixels, and "
                    f"the scorer zoo judges those of {SIZE} x {SIZE}; remove size"
                )
        seen = judge(numpy.stack([numpy.asarray(one.image) for one in drawn]))
        return [
            float(all(getattr(found, name) == one.row[name] for name in _COLUMNS))
            for found, one in zip(seen, drawn, strict=True)
        ]


SCORER = AllRight
