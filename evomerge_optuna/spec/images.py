"""The image task: pictures are drawn from prompts, and scorers of a table judge them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from evomerge_optuna.spec.data import TaskData, Template, Text
from evomerge_optuna.spec.metrics import Better, Kind, Metric
from evomerge_optuna.spec.part import DeviceName, FunctionName, Integer, Strict

_PICKSCORE = "yuvalkirstain/PickScore_v1"
_ITS_PROCESSOR = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
_CLIP_OF_LAION = "openai/clip-vit-large-patch14"


class _Scorer(Strict):
    """What scorers have in common: what kind of number they give."""

    kind: ClassVar[Kind] = "number"
    better: ClassVar[Better | None] = "high"


class ClipScorer(_Scorer):
    """CLIPScore: 100 times the cosine of prompt and picture, at least 0 (arXiv 2104.08718)."""

    type: Literal["clip"]
    """The type of the scorer."""
    model: str = _CLIP_OF_LAION
    """A CLIP or SigLIP model of transformers: a hub id, a folder, or `zoo:sd-clip`."""


class PickScorer(_Scorer):
    """PickScore: which pictures people choose, learnt by a CLIP model (arXiv 2305.01569)."""

    type: Literal["pickscore"]
    """The type of the scorer."""
    model: str = _PICKSCORE
    """The model: a hub id or a folder."""
    processor: str = _ITS_PROCESSOR
    """The model whose tokenizer and image processor it reads with."""


class AestheticScorer(_Scorer):
    """LAION's aesthetic score, about 1 to 10: a linear head over the embeddings of CLIP."""

    type: Literal["aesthetic"]
    """The type of the scorer."""
    head: Annotated[str, Field(pattern=r"\.safetensors$")]
    """The weights of the head: a `.safetensors` file, or one of the hub, as
    `ORGANISATION/REPOSITORY/FILE.safetensors`."""
    model: str = _CLIP_OF_LAION
    """The CLIP model that the head was trained with: a hub id or a folder."""


class FunctionScorer(_Scorer):
    """A Python function of your own. It gets the images and their rows."""

    better: ClassVar[Better | None] = None

    type: Literal["python"]
    """The type of the scorer."""
    function: FunctionName
    """`module:function`, imported from the current folder. It is called with a list of images of
    Pillow, 64 at most, and the list of their rows, and returns a number for each."""


class ZooScorer(_Scorer):
    """Whether a picture of the zoo shows what its row says: `colour`, `shape` and `manner`."""

    kind: ClassVar[Kind] = "share"

    type: Literal["zoo"]
    """The type of the scorer."""


class MeanScorer(_Scorer):
    """The weighted mean of other scorers of the task."""

    type: Literal["mean"]
    """The type of the scorer."""
    of: Annotated[dict[str, float], Field(min_length=1)]
    """The weight of each scorer, by its name. The weights are divided by their sum."""

    @field_validator("of")
    @classmethod
    def _add_up(cls, value: dict[str, float]) -> dict[str, float]:
        if not all(0 < weight < float("inf") for weight in value.values()):
            raise ValueError("weights are above 0; leave out a scorer that counts nothing")
        return value


class HumanScorer(_Scorer):
    """A person's score of all pictures of a trial, given in optuna-dashboard while it waits."""

    type: Literal["human"]
    """The type of the scorer."""
    question: Annotated[str, Field(min_length=1)] = "How good are these pictures?"
    """What the person is asked."""
    choices: Annotated[dict[str, float], Field(min_length=2)] = Field(
        default={"bad": 0.0, "poor": 0.25, "fair": 0.5, "good": 0.75, "very good": 1.0}
    )
    """What the person may choose, and the score of each choice."""


ImageScorer = Annotated[
    ClipScorer
    | PickScorer
    | AestheticScorer
    | FunctionScorer
    | ZooScorer
    | MeanScorer
    | HumanScorer,
    Field(discriminator="type"),
]


class ImageTask(Strict):
    """Draw a picture of each prompt, and score the pictures.

    Each row has noise of its own, the same for all candidates. Each scorer is a metric.
    """

    type: Literal["image"]
    """The type of the task."""
    data: TaskData
    """The prompts of each split."""
    prompt: Template = "{prompt}"
    """A template. `{column}` stands for the row's value in that column."""
    negative: Text = ""
    """A template of what the picture is not to show. It needs a guidance above 1."""
    seed: str | None = None
    """The column with the seed of the noise. By default, the seed is made of the prompt and the
    row's number."""
    steps: Annotated[Integer, Field(ge=1)] = 30
    """The number of steps of the pipeline's scheduler."""
    guidance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5.0
    """The scale of classifier-free guidance. Up to 1 there is none, and a step takes half the
    time."""
    size: tuple[Annotated[Integer, Field(ge=8)], Annotated[Integer, Field(ge=8)]] | None = None
    """The width and height in pixels, for example `[1024, 1024]`. The default is the pipeline's
    own."""
    scorers: Annotated[dict[str, ImageScorer], Field(min_length=1)]
    """The scorers, under names that you choose. `TASK.NAME` is the metric."""
    device: DeviceName = "auto"
    """Where the models of the scorers run. `auto` takes a GPU if there is one."""

    @field_validator("size", mode="before")
    @classmethod
    def _square(cls, value: object) -> object:
        return (value, value) if isinstance(value, int) else value

    @model_validator(mode="after")
    def _means_of_scorers(self) -> Self:
        for name, scorer in self.scorers.items():
            if not name.isidentifier():
                raise ValueError(f"scorers: the name '{name}' has other characters than words have")
            for part in scorer.of if isinstance(scorer, MeanScorer) else ():
                if isinstance(self.scorers.get(part), MeanScorer | HumanScorer | None):
                    known = [n for n, s in self.scorers.items() if _may_be_averaged(s)]
                    raise ValueError(
                        f"scorers.{name}.of: '{part}' is no scorer of single pictures; those are "
                        + (", ".join(known) or "none here")
                    )
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(Metric(n, s.kind, s.better) for n, s in self.scorers.items())

    @property
    def human(self) -> dict[str, HumanScorer]:
        """The scorers that ask a person, by their names."""
        return {n: s for n, s in self.scorers.items() if isinstance(s, HumanScorer)}


def _may_be_averaged(scorer: _Scorer) -> bool:
    return not isinstance(scorer, MeanScorer | HumanScorer)
