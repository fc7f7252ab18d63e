"""Questions about images: data of every kind, prompts, batches, scores, models without eyes.

Covers engines.images, evaluation.image_prompts and evaluation.images, too.
"""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from evomerge_optuna.engines import batching, load_engine
from evomerge_optuna.errors import SpecError
from evomerge_optuna.evaluation.data import check_data, fingerprint_data
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.evaluation.image_prompts import image_prompts
from evomerge_optuna.evaluation.problem import Problem
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.families import load_checkpoint
from evomerge_optuna.models.reader import Reader
from evomerge_optuna.scoring import score_checkpoint
from evomerge_optuna.spec import EvaluationSpec, VqaTask
from tests.conftest import WORDS, SpecMaker
from tests.engine import generate_about
from tests.vision import SIZE, save_tiny_llava

COLOURS = ["red", "blue", "black"]
QUESTIONS = [f"{WORDS[i]} {WORDS[i + 1]}" for i in range(3)]


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), colour).save(file, "PNG")
    return file.getvalue()


IMAGES = [png(colour) for colour in COLOURS]
ROWS = [{"question": question, "answer": str(i)} for i, question in enumerate(QUESTIONS)]


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("llava") / "llava", 7, tiny / "base")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The same three problems in every form."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, content in enumerate(IMAGES):
        (folder / f"{i}.png").write_bytes(content)
    listed = [{"file_name": f"{i}.png", **row} for i, row in enumerate(ROWS)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    paths = [{"image": f"folder/{i}.png", **row} for i, row in enumerate(ROWS)]
    (tmp_path / "paths.jsonl").write_text("".join(json.dumps(row) + "\n" for row in paths))
    stored = [{"image": {"bytes": IMAGES[i], "path": None}, **row} for i, row in enumerate(ROWS)]
    features = datasets.Features(
        {"image": datasets.Image(), "question": datasets.Value("string"),
         "answer": datasets.Value("string")}
    )  # fmt: skip
    datasets.Dataset.from_list(stored, features=features).to_parquet(tmp_path / "stored.parquet")
    return tmp_path


def task(path: Path, split: str = "train", **parts: Any) -> VqaTask:
    data = {"search": {"path": str(path), "split": split}}
    return VqaTask.model_validate({"type": "vqa", "data": data, **parts})


@pytest.mark.parametrize("name", ["folder", "paths.jsonl", "stored.parquet"])
def test_images_are_the_files_own_bytes(files: Path, name: str) -> None:
    found = runners({"t": task(files / name)})["t"].problems("search")
    assert [(p.text, p.reference, p.image) for p in found] == [
        (f"<image>\n{row['question']}", row["answer"], content)
        for row, content in zip(ROWS, IMAGES, strict=True)
    ]


def test_another_image_is_another_problem(files: Path) -> None:
    plain = fingerprint_data(runners({"t": task(files / "paths.jsonl")}))
    assert plain == fingerprint_data(runners({"t": task(files / "stored.parquet")}))
    (files / "folder" / "1.png").write_bytes(png("yellow"))
    assert fingerprint_data(runners({"t": task(files / "paths.jsonl")})) != plain

    row = {"question": "same", "answer": "1"}
    lines = [json.dumps({"image": f"folder/{i}.png", **row}) for i in (0, 1, 0)]
    (files / "same.jsonl").write_text("\n".join(lines))

    def splits(**rows: int) -> VqaTask:
        path = str(files / "same.jsonl")
        data = {split: {"path": path, "split": f"train[{n}:{n + 1}]"} for split, n in rows.items()}
        return VqaTask.model_validate({"type": "vqa", "data": data})

    check_data(runners({"t": splits(search=0, test=1)}))
    with pytest.raises(SpecError, match="a problem of search occurs again in test"):
        check_data(runners({"t": splits(search=0, test=2)}))


@pytest.mark.parametrize(
    ("row", "parts", "message"),
    [
        ({"image": "folder/9.png"}, {}, "the image folder/9.png cannot be read: No such file"),
        ({"image": 3}, {}, "'3' is no image; name the column of the images"),
        ({"image": "bad.png"}, {}, "an image cannot be read: "),
        ({"image": "pipe"}, {}, "the image pipe is no file"),
        ({"image": "folder/0.png"}, {"image": "img"}, "has no column 'img'; it has question, "),
        ({"image": "folder/0.png", "answer": "x"}, {}, "the answer 'x' has no number"),
        ({"image": "folder/0.png", "question": "<image>?"}, {}, "a problem has <image> in its tex"),
    ],
)
def test_bad_rows(files: Path, row: dict[str, Any], parts: dict[str, Any], message: str) -> None:
    (files / "bad.png").write_bytes(IMAGES[0][:40])
    os.mkfifo(files / "pipe")
    (files / "bad.jsonl").write_text(json.dumps({"question": "q", "answer": "1", **row}))
    with pytest.raises(SpecError) as error:
        check_data(runners({"t": task(files / "bad.jsonl", **parts)}))
    assert str(error.value).startswith("tasks.t.data.search")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("prompt", ["{question}", "<image><image>{question}"])
def test_a_prompt_has_one_image(prompt: str) -> None:
    with pytest.raises(ValueError, match="prompt: write <image> once, where the image belongs"):
        task(Path("d"), prompt=prompt)


def test_a_batch_is_each_prompts_own_answer(llava: Path) -> None:
    model, reader = load_checkpoint(llava, "cpu")
    prompts = [f"<image>\n{' '.join(WORDS[: 1 + i % 4])}" for i in range(6)]
    images = [IMAGES[i % 3] for i in range(6)]
    own = AutoModelForImageTextToText.from_pretrained(llava)
    plain = AutoProcessor.from_pretrained(llava)
    alone = []
    for prompt, content in zip(prompts, images, strict=True):
        inputs = plain(text=prompt, images=Image.open(io.BytesIO(content)), return_tensors="pt")
        output = own.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        alone.append(plain.decode(new, skip_special_tokens=True).strip())
    assert generate_about(model, reader, prompts, images, 6, batch_size=4) == alone
    assert generate_about(model, reader, prompts[:1] * 3, IMAGES, 6, batch_size=1) != (
        alone[:1] * 3
    )
    stop = alone[0].split()[2]
    (cut,) = generate_about(model, reader, prompts[:1], images[:1], 6, 1, stop=[stop])
    assert cut == alone[0].partition(stop)[0].strip()


def test_smaller_batches_where_memory_runs_out(
    llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_limit", batching._limit)
    model, reader = load_checkpoint(llava, "cpu")
    prompts, images = [f"<image>\n{word}" for word in WORDS[:6]], IMAGES * 2
    whole = generate_about(model, reader, prompts, images, 4, batch_size=6)
    sizes: list[int] = []

    def run(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(run, with_kwargs=True)
    assert generate_about(model, reader, prompts, images, 4, batch_size=6) == whole
    assert sizes[:2] == [6, 3]


def test_prompts() -> None:
    class Template:
        image_token = "<|picture|>"
        image_processor = None
        chat_template = "a template"

        def apply_chat_template(self, messages: list[dict[str, Any]], **_: Any) -> str:
            return json.dumps(messages)

    plain = task(Path("d"), prompt="Q: <image> {question}")
    problem = Problem("Q: <image> 何？", "1")
    reader = Reader(None, processor=Template())
    assert image_prompts(plain, [problem], reader, "t") == ["Q: <|picture|> 何？"]
    chat = task(Path("d"), chat=True, system="短く")
    (found,) = image_prompts(chat, [problem], reader, "t")
    assert json.loads(found) == [
        {"role": "system", "content": "短く"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Q:"},
                {"type": "image"},
                {"type": "text", "text": "何？"},
            ],
        },
    ]
    Template.chat_template = ""
    with pytest.raises(SpecError, match=r"t\.chat: the processor has no chat template; leave"):
        image_prompts(chat, [problem], reader, "t")
    with pytest.raises(SpecError, match="names no placeholder of images; write chat: true"):
        image_prompts(plain, [problem], Reader(None, processor=object()), "t")


@pytest.fixture
def spec(make_spec: SpecMaker, files: Path) -> Callable[..., Any]:
    return lambda metric, **parts: make_spec(
        tasks={
            "eyes": {
                "type": "vqa",
                "data": {"search": {"path": str(files / "stored.parquet")}},
                "max_new_tokens": 4,
                **parts,
            }
        },
        objectives=[{"maximize": f"eyes.{metric}"}],
    )


def test_scores(llava: Path, spec: Callable[..., Any]) -> None:
    engine = load_engine(llava, EvaluationSpec(device="cpu"))
    found = Evaluator(spec("rouge_l", scorer="rouge_l")).evaluate(engine, "search")
    texts = [row["text"] for row in found.rows()]
    assert found.scores["eyes.rouge_l"].n == 3 and found.marks() == {}
    again = Evaluator(spec("accuracy", scorer="contains", language="ja")).evaluate(engine, "search")
    assert [row["text"] for row in again.rows()] == texts
    assert set(again.scores) == {"eyes.accuracy", "eyes.match_accuracy", "eyes.language_share"}
    assert again.marks() == {"eyes": "000"}
    json.dumps(again.rows())  # stored with the study, without the images


def test_a_model_without_eyes(tiny: Path, spec: Callable[..., Any]) -> None:
    with pytest.raises(SpecError) as error:
        score_checkpoint(str(tiny / "a"), spec("accuracy"), "search")
    assert str(error.value) == (
        "tasks.eyes: the model takes no images; a vqa task needs a vision-language model, with "
        "its processor"
    )


def test_the_zoos_pictures() -> None:
    found = task(Path("zoo:pictures"), "dev", answer="solution", scorer="exact")
    (problem, *others) = runners({"t": found})["t"].problems("search")
    assert len(others) == 199
    assert problem.image is not None and problem.image.startswith(b"BM")


def test_without_pillow(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # as where it is not installed
    with pytest.raises(SpecError, match=r"images need Pillow: pip install 'evomerge-optuna\[vis"):
        runners({"t": task(files / "paths.jsonl")})["t"].problems("search")
