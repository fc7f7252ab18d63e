"""Models whose heads are wide enough for vLLM's attention on the CPU, and a study of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evomerge_optuna.engines import live
from evomerge_optuna.spec import StudySpec, parse_spec
from tests.conftest import WORDS, save_family

WIDE = {"hidden_size": 64, "initializer_range": 0.2, "max_position_embeddings": 128}
ENGINE: dict[str, Any] = {"engine": "vllm", "engine_args": {"kv_cache_memory_bytes": 2**26}}


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `tied` and `untied`, with a base and its fine-tunes a and b each; and questions."""
    root = tmp_path_factory.mktemp("families")
    for name, tied in {"tied": True, "untied": False}.items():
        save_family(root / name, "ab", **WIDE, tie_word_embeddings=tied)
    for split, start in {"search": 0, "test": 5}.items():
        rows = [
            {"question": " ".join([WORDS[start], *WORDS[n : 2 * n]]), "answer": "word3"}
            for n in range(10)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture
def content(families: Path) -> dict[str, Any]:
    """A study of the untied models, with a task of each type that vLLM runs."""
    data = {split: {"path": str(families / f"{split}.jsonl")} for split in ("search", "test")}
    untied = families / "untied"
    return {
        "study": "words",
        "stage": "ps",
        "base_model": str(untied / "base"),
        "models": {name: str(untied / name) for name in "ab"},
        "merge": {"method": "ties", "layer_group_size": 2, "weight": [0, 2]},
        "sampler": {"seed": 1, "population": 4},
        "trials": 8,
        "tasks": {
            "say": {"type": "generate", "data": data, "max_new_tokens": 8, "stop": ["word9"]},
            "choose": {
                "type": "choice",
                "data": data,
                "prompt": "{question} ",
                "options": ["{answer}", "word5", "word6 word7"],
            },
            "read": {"type": "perplexity", "data": data, "text": "{question} {answer}"},
        },
        "objectives": [{"minimize": "read.perplexity"}],
        "evaluation": {"device": "cpu", **ENGINE},
    }


@pytest.fixture
def spec(content: dict[str, Any]) -> StudySpec:
    return parse_spec(content)


@pytest.fixture(scope="session", autouse=True)
def _end() -> Iterator[None]:
    yield
    live.close()
