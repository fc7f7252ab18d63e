"""CLIPScore (arXiv 2104.08718): 100 times the cosine of prompt and picture, at least 0."""

from collections.abc import Sequence

from evomerge_optuna.evaluation.image_scorers.base import Drawn, PictureScorer
from evomerge_optuna.evaluation.image_scorers.embedding import (
    check_embedder,
    embedder,
    embedder_fingerprint,
)
from evomerge_optuna.spec.images import ClipScorer


class Clip(PictureScorer[ClipScorer]):
    """How well a picture fits its prompt, to a CLIP or SigLIP model."""

    def check(self) -> None:
        check_embedder(self.spec.model, f"{self.key}.model")

    def fingerprint(self) -> str:
        return embedder_fingerprint(self.spec.model)

    def scores(self, drawn: Sequence[Drawn]) -> list[float]:
        model = self.spec.model
        loaded = embedder(model, model, self.device, f"{self.key}.model")
        cosines = loaded.cosines([one.prompt for one in drawn], [one.image for one in drawn])
        return [float(100 * cosine) for cosine in cosines.clamp(min=0)]


SCORER = Clip
