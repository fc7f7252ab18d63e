"""PickScore (arXiv 2305.01569): a CLIP model that has learnt which pictures people choose."""

from collections.abc import Sequence

from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.image_scorers.base import Drawn, PictureScorer
from evomerge_optuna.evaluation.image_scorers.embedding import (
    check_embedder,
    embedder,
    embedder_fingerprint,
    processor_files,
)
from evomerge_optuna.spec.images import PickScorer


class Pick(PictureScorer[PickScorer]):
    """The logarithm of how likely a person chooses a picture, up to a constant of its prompt."""

    def check(self) -> None:
        check_embedder(self.spec.model, f"{self.key}.model")
        if not processor_files(self.spec.processor):
            raise SpecError(
                f"{self.key}.processor: {self.spec.processor} has no files of a processor, such as "
                "preprocessor_config.json"
            )

    def fingerprint(self) -> str:
        return embedder_fingerprint(self.spec.model, *processor_files(self.spec.processor))

    def scores(self, drawn: Sequence[Drawn]) -> list[float]:
        loaded = embedder(self.spec.model, self.spec.processor, self.device, f"{self.key}.model")
        cosines = loaded.cosines([one.prompt for one in drawn], [one.image for one in drawn])
        return [float(loaded.logit_scale * cosine) for cosine in cosines]


SCORER = Pick
