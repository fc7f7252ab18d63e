"""Each guide is done line by line, with tiny stand-ins of the models and data that it names."""

import json
import shutil
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import LlamaForCausalLM

from evomerge_optuna.models.digest import digest_files
from tests.conftest import CommandLine, save_adapter, save_tiny_model
from tests.pages import DOCS, NOT_RUN, ROOT, blocks, do, extend
from tests.pipelines import save_pipeline, save_variant

# Of each guide, the blocks that cannot be run here. The page gives the reader the reason.
LEFT_OUT = {"adapters": 2, "gpu": 2, "images": 2, "research": 2}


def test_what_is_not_run_is_counted() -> None:
    guides = [file.stem for file in (DOCS / "guides").glob("*.md")]
    assert sorted(guides) == sorted(LEFT_OUT)
    for name, count in LEFT_OUT.items():
        found = blocks(f"guides/{name}.md")
        assert len([block for block in found if block.kind == "sh" and block.is_run]) > 1
        assert len([block for block in found if not block.is_run]) == count
        assert (DOCS / "guides" / f"{name}.md").read_text().count(NOT_RUN) == count


@pytest.fixture
def reader(command_line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Somebody in an empty folder, who has set no variables."""
    monkeypatch.delenv("EVOMERGE_HOME")
    folder = command_line.folder / "empty"
    folder.mkdir()
    return CommandLine(folder, {})


def save_models(folder: Path, *names: str) -> None:
    """A tiny base model, the first, and fine-tunes of it."""
    base = save_tiny_model(folder / names[0], 0)
    for seed, name in enumerate(names[1:], start=1):
        save_tiny_model(folder / name, seed, base)


def test_a_sampler_or_a_method_of_ones_own(reader: CommandLine) -> None:
    folder = reader.folder
    extend(folder, "guides/research.md")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    save_models(folder / "models", "base", "chat", "code")
    rows = [{"text": f"word{i % 7} word{i % 11} word{i % 13} word{i // 13}"} for i in range(200)]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = CommandLine(folder, {"PYTHONPATH": str(folder)})
    table, tested, _ = do("guides/research.md", own, afresh=True)
    assert "each" in table and "worst" in table and "%" not in table
    assert "Gap of " in tested
    assert digest_files(folder / "my-model") in (folder / "my-model" / "README.md").read_text()


def save_questions(file: Path) -> None:
    """Questions in Japanese whose answers are numbers, in a CSV as people have it."""
    rows = [
        f"りんごが{i}個と{i % 7}個あります。全部で何個ですか。,{i + i % 7}" for i in range(1, 41)
    ]
    file.write_text("\n".join(["question,answer", *rows]) + "\n")


def test_7b_models_and_one_gpu(reader: CommandLine) -> None:
    folder = reader.folder
    save_models(folder / "models", "base", "ja", "math")
    save_questions(folder / "problems.csv")
    said = do("guides/gpu.md", reader)
    assert "memory" in said[1] and "Gap of " in said[-2]
    kept = folder / "ja-math-7b"
    assert digest_files(kept) in (kept / "README.md").read_text()


def test_lora_adapters(reader: CommandLine) -> None:
    folder = reader.folder
    base = save_tiny_model(folder / "models" / "base", 0)
    for seed, name in enumerate(("ja", "math")):
        save_adapter(folder / "adapters" / name, base, seed)
    save_questions(folder / "problems.csv")
    said = do("guides/adapters.md", reader)
    assert "Gap of " in said[-2]
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), folder / "my-adapter")
    assert model.peft_config["default"].r == 8  # cat: the sum of the ranks


def test_image_models(reader: CommandLine) -> None:
    folder = reader.folder
    base = save_pipeline(folder / "models" / "base")
    for seed, name in enumerate(("painted", "photo")):
        save_variant(base, folder / "models" / name, seed)
    prompts = [
        f"a {colour} {shape}" for colour in ("red", "blue") for shape in ("circle", "square")
    ]
    rows = [f"{prompt} number {i}" for i in range(8) for prompt in prompts]
    (folder / "prompts.csv").write_text("\n".join(["prompt", *rows]) + "\n")
    said = do("guides/images.md", reader)
    assert "Gap of " in said[-2]
    assert "<img" in (folder / "pictures.html").read_text()
    assert (folder / "my-pipeline" / "model_index.json").exists()
