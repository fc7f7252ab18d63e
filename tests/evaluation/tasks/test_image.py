"""The image task: seeds, scorers, what a person is asked, and what specs are refused.

Covers evaluation.image_scorers.base, evaluation.image_scorers.embedding,
evaluation.image_scorers.clip, evaluation.image_scorers.pickscore, evaluation.image_scorers.zoo,
evaluation.image_scorers.aesthetic, evaluation.image_scorers.python, evaluation.contact_sheet and
spec.images, too.
"""

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import SiglipConfig, SiglipModel

from evomerge_optuna.engines.base import Drawing, Picture
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.contact_sheet import from_thumbnail, grid, side_by_side, thumbnail
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.image_scorers import Drawn, picture_scorers
from evomerge_optuna.evaluation.image_scorers.zoo import AllRight
from evomerge_optuna.evaluation.person import Question, person
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.evaluation.tasks.image import SHOWN, ImageRunner
from evomerge_optuna.evaluation.user_code import allow
from evomerge_optuna.spec import ImageTask, parse_spec
from evomerge_optuna.zoo.images.parts import make_clip, make_processor
from evomerge_optuna.zoo.images.scenes import Scene

ROWS = [
    {"prompt": "赤い 丸", "seed": 3, "colour": "red", "shape": "circle", "manner": "japanese"},
    {"prompt": "青い 十字", "seed": 4, "colour": "blue", "shape": "cross", "manner": "japanese"},
    {"prompt": "緑の 四角", "seed": 5, "colour": "green", "shape": "square", "manner": "japanese"},
]
ZOO = {"right": {"type": "zoo"}}


class Painter:
    """An engine whose pictures are all right but the last, which is on plain paper."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = rows
        self.asked: list[Picture] = []
        self.how: Drawing | None = None

        self.drawn = 0

    def draw(self, asked: Sequence[Picture], how: Drawing) -> Iterator[Image.Image]:
        self.asked, self.how = list(asked), how
        manners = ["japanese"] * (len(self.rows) - 1) + ["plain"]
        for row, manner in zip(self.rows, manners, strict=True):
            self.drawn += 1
            yield Scene(row["colour"], row["shape"], manner).picture()


@pytest.fixture
def runner(tmp_path: Path) -> Callable[..., ImageRunner]:
    def make(rows: Sequence[dict[str, Any]] = ROWS, **keys: Any) -> ImageRunner:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        content = {"type": "image", "data": {"search": {"path": str(file)}}, "scorers": ZOO}
        task = ImageTask.model_validate(content | keys)
        found = runners({"pictures": task})["pictures"]
        assert isinstance(found, ImageRunner)
        return found

    return make


def test_few_pictures_are_held_at_a_time(
    runner: Callable[..., ImageRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    painter, seen = Painter(ROWS * 50), list[tuple[int, int]]()

    def scores(_: object, drawn: Sequence[Drawn]) -> list[float]:
        seen.append((painter.drawn, len(drawn)))
        return [0.0] * len(drawn)

    monkeypatch.setattr(AllRight, "scores", scores)
    found = runner(ROWS * 50)
    outcomes = found.run(painter, found.problems("search"))
    assert seen == [(64, 64), (128, 64), (150, 22)]
    assert [o.prompt for o in outcomes] == [row["prompt"] for row in ROWS * 50]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    processor = make_processor()
    make_clip(processor.tokenizer).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SigLIP with random weights, of another width than the CLIP."""
    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(1)
    processor = make_processor()
    each = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = {**each, "vocab_size": len(processor.tokenizer), "max_position_embeddings": 10}
    vision = {**each, "image_size": 32, "patch_size": 8}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_each_row_has_its_prompt_its_seed_and_its_scores(
    runner: Callable[..., ImageRunner],
) -> None:
    found = runner(seed="seed", steps=5, guidance=1, size=32, negative="not {colour}")
    engine = Painter(ROWS)
    outcomes = found.run(engine, found.problems("search"))
    assert engine.asked[1] == Picture("青い 十字", 4, "not blue")
    assert engine.how == Drawing(5, 1, (32, 32))
    assert [outcome.scores for outcome in outcomes] == [{"right": 1}, {"right": 1}, {"right": 0}]
    assert [outcome.mark() for outcome in outcomes] == [True, True, False]
    score = found.scores(outcomes, "search")["right"]
    assert (score.value, score.n) == (pytest.approx(2 / 3), 3) and score.low < 2 / 3 < score.high


def test_rows_without_a_seed_get_one_each_that_stays(runner: Callable[..., ImageRunner]) -> None:
    rows = [ROWS[0], ROWS[0], ROWS[1]]
    seeds = [p.seed for p in runner(rows).problems("search")]  # type: ignore[attr-defined]
    again = [p.seed for p in runner(rows).problems("search")]  # type: ignore[attr-defined]
    assert len({*seeds}) == 3 and seeds == again


def test_seeds_tell_prompts_apart_where_the_data_gives_them(
    runner: Callable[..., ImageRunner], tmp_path: Path
) -> None:
    (tmp_path / "dev.jsonl").write_text(json.dumps({**ROWS[0], "seed": 9}))
    data = {split: {"path": str(tmp_path / f"{split}.jsonl")} for split in ("search", "dev")}
    (tmp_path / "search.jsonl").write_text(json.dumps(ROWS[0]))
    check_data({"pictures": runner(data=data, seed="seed")})
    with pytest.raises(SpecError, match="splits must not overlap"):
        check_data({"pictures": runner(data=data)})


def test_a_seed_that_is_no_number_is_refused(runner: Callable[..., ImageRunner]) -> None:
    with pytest.raises(SpecError, match=r"row 1: the seed of the noise is 'x'; write a whole"):
        runner([{**ROWS[0], "seed": "x"}], seed="seed").problems("search")


def test_another_seed_is_other_data(runner: Callable[..., ImageRunner]) -> None:
    before, after = (
        fingerprint_data({"pictures": runner([{**ROWS[0], "seed": seed}], seed="seed")})
        for seed in (1, 2)
    )
    assert before != after


def test_clip_scores_are_those_of_the_model_itself(
    runner: Callable[..., ImageRunner], clip: Path
) -> None:
    from transformers import CLIPModel, CLIPProcessor

    found = runner(scorers={"clip": {"type": "clip", "model": str(clip)}})
    found.check_judges()
    outcomes = found.run(Painter(ROWS), found.problems("search"))
    model, processor = CLIPModel.from_pretrained(clip), CLIPProcessor.from_pretrained(clip)
    read = processor(
        text=[row["prompt"] for row in ROWS],
        images=list(Painter(ROWS).draw([], Drawing(1, 1))),
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        logits = model(**read).logits_per_text.diagonal() / model.logit_scale.exp()
    expected = 100 * logits.clamp(min=0)
    assert [o.scores["clip"] for o in outcomes] == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_siglip_and_pickscore_judge_alike_but_for_their_scale(siglip: Path) -> None:
    task = ImageTask.model_validate(
        {
            "type": "image",
            "data": "zoo:scenes",
            "scorers": {
                "clip": {"type": "clip", "model": str(siglip)},
                "pick": {"type": "pickscore", "model": str(siglip), "processor": str(siglip)},
            },
        }
    )
    scorers = picture_scorers(task, "tasks.pictures")
    images = Painter(ROWS).draw([], Drawing(1, 1))
    drawn = [Drawn(i, r["prompt"], r) for i, r in zip(images, ROWS, strict=True)]
    cosines, picks = scorers["clip"].scores(drawn), scorers["pick"].scores(drawn)
    scale = SiglipModel.from_pretrained(siglip).logit_scale.exp().item()
    clamped = [max(0.0, pick / scale * 100) for pick in picks]
    assert cosines == pytest.approx(clamped, abs=1e-4)
    assert len({*picks}) == 3


def test_another_processor_of_pickscore_is_another_judge(
    runner: Callable[..., ImageRunner], siglip: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(siglip, tmp_path / "processor")
    (folder / "model.safetensors").unlink()
    scorer = {"type": "pickscore", "model": str(siglip), "processor": str(folder)}
    found = runner(scorers={"pick": scorer})
    found.check_judges()
    before = found.judges()
    file = next(f for f in folder.iterdir() if "processor" in f.name)
    file.write_text(file.read_text().replace("0.5", "0.25"))
    assert found.judges() != before
    file.unlink()
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(SpecError, match=r"scorers\.pick\.processor: .* no files of a processor"):
        found.check_judges()


def test_a_siglip_takes_an_aesthetic_head(
    runner: Callable[..., ImageRunner], siglip: Path, tmp_path: Path
) -> None:
    head = {"layers.0.weight": torch.ones(1, 32), "layers.0.bias": torch.ones(1)}
    save_file(head, tmp_path / "head.safetensors")
    scorer = {"type": "aesthetic", "head": str(tmp_path / "head.safetensors"), "model": str(siglip)}
    found = runner(scorers={"beauty": scorer})
    outcomes = found.run(Painter(ROWS), found.problems("search"))
    assert len({outcome.scores["beauty"] for outcome in outcomes}) == 3


def test_the_aesthetic_head_is_a_chain_of_linear_layers(
    runner: Callable[..., ImageRunner], clip: Path, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    shapes = ((16, 64), (1, 16))
    layers = {
        f"layers.{2 * number}.{part}": torch.randn(shape if part == "weight" else shape[:1])
        for number, shape in enumerate(shapes)
        for part in ("weight", "bias")
    }
    save_file(layers, tmp_path / "head.safetensors")
    scorer = {"type": "aesthetic", "head": str(tmp_path / "head.safetensors"), "model": str(clip)}
    found = runner(scorers={"beauty": scorer})
    found.check_judges()
    before = found.judges()
    outcomes = found.run(Painter(ROWS), found.problems("search"))
    assert len({outcome.scores["beauty"] for outcome in outcomes}) == 3
    save_file(
        {**layers, "layers.0.bias": layers["layers.0.bias"] + 1}, tmp_path / "head2.safetensors"
    )
    scorer["head"] = str(tmp_path / "head2.safetensors")
    other = runner(scorers={"beauty": scorer})
    moved = other.run(Painter(ROWS), other.problems("search"))
    by = [b.scores["beauty"] - a.scores["beauty"] for a, b in zip(outcomes, moved, strict=True)]
    assert by == pytest.approx([layers["layers.2.weight"].sum().item()] * 3, abs=1e-3)
    assert other.judges() != before


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({"layers.0.weight": (1, 32), "layers.0.bias": (1,)}, "takes embeddings of 32 numbers"),
        ({"layers.0.weight": (2, 64), "layers.0.bias": (2,)}, "no chain of linear layers"),
        ({"other": (1,)}, "no chain of linear layers"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    tensors: dict[str, tuple[int, ...]],
    reason: str,
    runner: Callable[..., ImageRunner],
    clip: Path,
    tmp_path: Path,
) -> None:
    save_file({n: torch.zeros(s) for n, s in tensors.items()}, tmp_path / "head.safetensors")
    scorer = {"type": "aesthetic", "head": str(tmp_path / "head.safetensors"), "model": str(clip)}
    found = runner(scorers={"beauty": scorer})
    with pytest.raises(SpecError, match=rf"scorers\.beauty\.head: .*{reason}"):
        found.check_judges()
        found.run(Painter(ROWS), found.problems("search"))


def test_what_judges_is_looked_for_before_anything_is_drawn(
    runner: Callable[..., ImageRunner], tiny: Path
) -> None:
    for model, reason in (("./none", "there is no folder"), (str(tiny / "base"), "name a CLIP")):
        found = runner(scorers={"clip": {"type": "clip", "model": model}})
        with pytest.raises(SpecError, match=rf"tasks\.pictures\.scorers\.clip\.model: .*{reason}"):
            check_data({"pictures": found})


def test_a_function_of_ones_own_gets_images_and_rows(
    runner: Callable[..., ImageRunner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """def red(images, rows):
    return [i.getpixel((16, 13))[0] + row["seed"] for i, row in zip(images, rows)]
"""
    (tmp_path / "my_red.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    found = runner(scorers={"red": {"type": "python", "function": "my_red:red"}})
    problems = found.problems("search")
    with pytest.raises(SpecError, match=r"scorers\.red\.function: .*--allow-code"):
        found.run(Painter(ROWS), problems)
    allow(["my_red:red"])
    outcomes = found.run(Painter(ROWS), problems)
    assert [outcome.scores["red"] for outcome in outcomes] == [210 + 3, 40 + 4, 30 + 5]
    assert outcomes[0].mark() is None


def test_a_mean_weighs_other_scorers(runner: Callable[..., ImageRunner], clip: Path) -> None:
    scorers = ZOO | {
        "clip": {"type": "clip", "model": str(clip)},
        "both": {"type": "mean", "of": {"right": 3, "clip": 1}},
    }
    found = runner(scorers=scorers)
    for outcome in found.run(Painter(ROWS), found.problems("search")):
        wanted = 0.75 * outcome.scores["right"] + 0.25 * outcome.scores["clip"]
        assert outcome.scores["both"] == pytest.approx(wanted)


def test_a_person_is_asked_once_about_all_pictures(runner: Callable[..., ImageRunner]) -> None:
    found = runner(scorers=ZOO | {"taste": {"type": "human", "choices": {"no": 0, "yes": 2.5}}})
    asked: list[Question] = []

    def ask(question: Question) -> float:
        asked.append(question)
        return 2.5

    problems = found.problems("search")
    with person(ask):
        outcomes = found.run(Painter(ROWS), problems)
    assert [(q.target, dict(q.choices)) for q in asked] == [
        ("pictures.taste", {"no": 0, "yes": 2.5})
    ]
    assert Image.open(io.BytesIO(asked[0].sheet)).size == (3 * 132 - 4, 128)
    score = found.scores(outcomes, "search")["taste"]
    assert (score.value, score.n) == (2.5, 1)
    alone = found.run(Painter(ROWS), problems)  # as on dev and test
    assert set(found.scores(alone, "search")) == {"right"}


def test_the_first_pictures_are_kept_with_the_answers(runner: Callable[..., ImageRunner]) -> None:
    rows = [{**ROWS[number % 3], "seed": number} for number in range(SHOWN + 2)]
    found = runner(rows, seed="seed")
    problems = found.problems("search")[::-1]  # as racing orders them
    kept = [o.thumbnail for o in found.run(Painter(rows[::-1]), problems)]
    assert [thumb is not None for thumb in kept] == [False, False] + [True] * SHOWN
    assert kept[-1] is not None
    drawn = Scene("red", "circle", "plain").picture()  # the painter's last
    assert numpy.array_equal(numpy.asarray(from_thumbnail(kept[-1])), numpy.asarray(drawn))


def test_a_thumbnail_is_small() -> None:
    content = thumbnail(Image.new("RGB", (1024, 512), "red"))
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (256, 128)


@pytest.mark.parametrize(("drawn", "shown"), [(32, 128), (256, 256), (1024, 320)])
def test_a_person_sees_pictures_large_enough_to_judge_them(drawn: int, shown: int) -> None:
    sheet = grid([Image.new("RGB", (drawn, drawn), "red")] * 9)
    assert Image.open(io.BytesIO(sheet)).size == (8 * (shown + 4) - 4, 2 * (shown + 4) - 4)


def test_sheets_have_a_row_for_each_model() -> None:
    images = list(Painter(ROWS).draw([], Drawing(1, 1)))
    sheet = Image.open(io.BytesIO(side_by_side({"one": images, "another": images})))
    assert sheet.size == (120 + 3 * 132, 18 + 2 * 132)
    first, second = sheet.crop((120, 18, 516, 146)), sheet.crop((120, 150, 516, 278))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"scorers": {}}, "scorers"),
        ({"scorers": {"a b": {"type": "zoo"}}}, "has other characters"),
        ({"scorers": ZOO | {"m": {"type": "mean", "of": {"left": 1}}}}, "those are right"),
        ({"scorers": ZOO | {"m": {"type": "mean", "of": {"right": -1}}}}, "weights are above 0"),
        ({"scorers": {"m": {"type": "mean", "of": {"m": 1}}}}, "'m' is no scorer of single"),
        ({"scorers": {"a": {"type": "aesthetic", "head": "head.pth"}}}, "safetensors"),
        ({"guidance": -1}, "guidance"),
        ({"steps": 0}, "steps"),
    ],
)
def test_specs_that_are_refused(keys: dict[str, Any], reason: str) -> None:
    content = {"type": "image", "data": "zoo:scenes", "scorers": ZOO, **keys}
    with pytest.raises(ValueError, match=reason):
        ImageTask.model_validate(content)


def test_a_person_is_not_raced(spec_content: Callable[..., dict[str, Any]]) -> None:
    task = {"type": "image", "data": "zoo:scenes", "scorers": {"taste": {"type": "human"}}}
    content = spec_content(tasks={"pictures": task}, objectives=[{"maximize": "pictures.taste"}])
    assert not parse_spec(content).has_dev
    with pytest.raises(SpecError, match="racing: a person is asked once"):
        parse_spec(content | {"racing": {"blocks": 10}})
