"""Real tiny parts: random Llama checkpoints with a tokenizer, data files, specs, databases."""

import json
import multiprocessing.forkserver
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge_optuna.spec import StudySpec, parse_spec
from evomerge_optuna.store.store import Store
from tests.forked import Command
from tests.gate import Gate

settings.register_profile("without hurry", deadline=None)
settings.load_profile("without hurry")

WORDS = [f"word{number}" for number in range(16)]
LAYERS = 4


def save_tiny_model(
    folder: Path, seed: int, base: Path | None = None, words: list[str] = WORDS, **config: Any
) -> Path:
    """A random Llama; with `base`, that model moved a little, as a fine-tune is."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {w: i + 3 for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(seed)
    settings = {
        "vocab_size": len(vocabulary),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "dtype": "float32",
    }
    model = LlamaForCausalLM(LlamaConfig(**{**settings, **config}))
    if base is not None:
        noise = {name: 0.1 * p.detach().clone() for name, p in model.named_parameters()}
        model = LlamaForCausalLM.from_pretrained(base)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter += noise[name]
    model.to(getattr(torch, {**settings, **config}["dtype"])).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def save_adapter(folder: Path, base: Path, seed: int) -> Path:
    """A LoRA adapter of a model, random in both halves."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base)
    # Not peft's own beginning, at which an adapter changes nothing.
    settings = LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(model, settings).save_pretrained(folder)
    return folder


def save_family(folder: Path, fine_tunes: str, **config: Any) -> None:
    """A tiny model `base`, and fine-tunes of it, each called by one letter."""
    base = save_tiny_model(folder / "base", 0, **config)
    for seed, name in enumerate(fine_tunes, start=1):
        save_tiny_model(folder / name, seed, base, **config)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints: base, and the fine-tunes a, b, c."""
    root = tmp_path_factory.mktemp("tiny")
    save_family(root, "abc")
    rows = [
        {"text": f"{WORDS[i % 10]} plus {WORDS[i // 10 % 10]} is {WORDS[(7 * i) % 10]} {i % 3}"}
        for i in range(60)
    ]
    for number, split in enumerate(("search", "dev", "test")):
        chosen = rows[20 * number : 20 * number + 20]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in chosen))
    return root


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home folder of this test's own; no database is configured from outside."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EVOMERGE_HOME", str(folder))
    monkeypatch.delenv("EVOMERGE_STORAGE", raising=False)
    monkeypatch.delenv("EVOMERGE_ARTIFACTS", raising=False)
    yield folder


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny pipelines: `base` with sources `a` and `b`, and `dit` with `dit-a`, a transformer."""
    from tests.pipelines import save_pipeline, save_sd3, save_variant

    folder = tmp_path_factory.mktemp("pipelines")
    base, dit = save_pipeline(folder / "base"), save_sd3(folder / "dit")
    for seed, name in enumerate("ab", start=1):
        save_variant(base, folder / name, seed)
    save_variant(dit, folder / "dit-a", 3, "transformer")
    return folder


SpecMaker = Callable[..., StudySpec]


@pytest.fixture(scope="session")
def spec_content(tiny: Path) -> Callable[..., dict[str, Any]]:
    """A valid spec over the tiny models, scored by perplexity; keywords replace its parts."""

    def make(**parts: Any) -> dict[str, Any]:
        content: dict[str, Any] = {
            "study": "tiny",
            "stage": "ps",
            "base_model": str(tiny / "base"),
            "models": {name: str(tiny / name) for name in "ab"},
            "merge": {"method": "ties", "layer_group_size": 2, "weight": [0, 2]},
            "sampler": {"seed": 1, "population": 4},
            "trials": 10,
            "starts": False,  # few trials, of which tests count what the sampler draws
            "tasks": {
                "words": {
                    "type": "perplexity",
                    "data": {
                        split: {"path": str(tiny / f"{split}.jsonl")}
                        for split in ("search", "dev", "test")
                    },
                }
            },
            "objectives": [{"minimize": "words.perplexity"}],
        }
        return content | parts

    return make


@pytest.fixture(scope="session")
def make_spec(spec_content: Callable[..., dict[str, Any]]) -> SpecMaker:
    return lambda **parts: parse_spec(spec_content(**parts))


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL server with an empty database."""
    from tests.postgres import running

    with running() as server:
        yield server.url


@pytest.fixture
def database(
    request: pytest.FixtureRequest, tmp_path: Path, command_line: "CommandLine"
) -> Iterator[Callable[[str], str]]:
    """Gives the URL of a fresh database: "sqlite", "postgres" or "proxy of" one of them."""
    with ExitStack() as stack:

        def make(kind: str) -> str:
            if kind.startswith("proxy of "):
                inner = make(kind.removeprefix("proxy of "))
                return stack.enter_context(proxy_of(inner, command_line))
            if kind == "sqlite":
                return f"sqlite:///{tmp_path / 'studies.db'}"
            return stack.enter_context(_postgres_database(request.getfixturevalue("postgres")))

        yield make


@contextmanager
def _postgres_database(server: str) -> Iterator[str]:
    import sqlalchemy

    url = sqlalchemy.make_url(server).set(drivername="postgresql+psycopg")
    admin = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"test_{uuid.uuid4().hex}"
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def storage_url(request: pytest.FixtureRequest, database: Callable[[str], str]) -> str:
    """A fresh database of each kind."""
    return database(request.param)


def wait_until(reached: Callable[[], bool], is_possible: Callable[[], bool] = lambda: True) -> None:
    """Waits as long as it takes, and no longer than it is possible.

    Args:
        is_possible: whether what is to bring it about still lives.
    """
    while True:
        was_possible = is_possible()
        if reached():
            return
        assert was_possible, "what was waited for cannot come any more"
        time.sleep(0.05)


@dataclass(frozen=True)
class CommandLine:
    """The command line as a user runs it: a process of its own, in a folder of its own."""

    folder: Path
    variables: dict[str, str]
    prefix: tuple[str, ...] = ()

    def with_home(self, name: str) -> "CommandLine":
        """The same, with a home folder of its own."""
        return replace(self, variables={"EVOMERGE_HOME": str(self.folder / name)})

    def under(self, *prefix: str) -> "CommandLine":
        """The same, run by another command."""
        return replace(self, prefix=prefix)

    def start(self, *arguments: str) -> Command | subprocess.Popen[str]:
        """A process forked from one that has imported what takes seconds."""
        if self.prefix:
            return self.start_afresh(*arguments)
        return Command(arguments, self.folder, self.variables)

    def start_afresh(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "evomerge_optuna", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """stdout and stderr of a command that must exit with `code`."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}"
        return out, err

    def show(self, study: str) -> dict[str, Any]:
        return json.loads(self.run("study", "show", study, "--json")[0])


@contextmanager
def proxy_of(url: str, command_line: CommandLine, port: int = 0) -> Iterator[str]:
    """The URL of a proxy of this storage; its process ends with the block."""
    process = command_line.start("storage", "serve", "--storage", url, "--port", str(port))
    assert process.stdout is not None
    found = re.search(r"grpc://\S+", process.stdout.readline())
    assert found is not None, process.communicate()
    try:
        yield found[0]
    finally:
        process.terminate()
        process.communicate()


def dashboard_of(store: Store) -> str:
    """The address of a dashboard, which a thread serves as long as this process lives."""
    from evomerge_optuna.report.dashboard import serve

    addresses: list[str] = []
    arguments = (store, "127.0.0.1", 0, addresses.append)
    thread = threading.Thread(target=serve, args=arguments, daemon=True)
    thread.start()
    wait_until(lambda: bool(addresses), thread.is_alive)
    return addresses[0]


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """For studies that `command_line` runs."""
    return Gate.build(tmp_path)


@pytest.fixture(scope="session")
def forkserver() -> None:
    """Started before any test sets variables, or goes elsewhere."""
    multiprocessing.forkserver.ensure_running()


@pytest.fixture
def command_line(tmp_path: Path, home: Path, forkserver: None) -> CommandLine:
    return CommandLine(tmp_path, {"EVOMERGE_HOME": str(home)})
