"""Makes the studies that tests/study/test_older.py opens, with the version that runs this.

`python make.py FOLDER` writes to FOLDER tiny models, `studies.sqlite3` and its artifacts, and
`continued.json`: what the same version makes of the studies when it goes on with them. The files
beside this one were made by the version of commit 28fd54b, in which one package, `study`, had all
that is now in `store`, `study`, `search` and `results`. Only public calls are used here, so that
other versions run it, too.

Weights are multiples of 1/128, and no tensor is changed by both models at one place: merges of them
are the same bits on every processor. An answer is one word, which a layer adds to the word before
it: scores do not hang on last digits.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from os import chdir
from pathlib import Path
from typing import Any

import optuna
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge_optuna import create_study, export, run_study
from evomerge_optuna.spec import parse_spec

QUESTIONS = [f"q{number}" for number in range(9)]
ANSWERS = [f"a{number}" for number in range(4)]
WORDS = ["<pad>", "</s>", "<unk>", *QUESTIONS, *ANSWERS]
SIZE = len(WORDS)

# By model and layer what it adds to a word: (word, answer, strength in eighths).
ADDED: dict[str, list[list[tuple[str, str, int]]]] = {
    "base": [[], []],
    "a": [
        [("q0", "a0", 5), ("q1", "a1", 9), ("q2", "a2", 6), ("q3", "a3", 13), ("q4", "a0", 7)],
        [("q5", "a0", 9), ("q6", "a1", 7), ("q7", "a2", 12), ("q4", "a3", 8)],
    ],
    "b": [
        [("q5", "a1", 8), ("q6", "a2", 5), ("q7", "a3", 15), ("q8", "a0", 11)],
        [("q0", "a3", 4), ("q1", "a2", 7), ("q2", "a1", 8)],
    ],
}


def save_model(folder: Path, layers: list[list[tuple[str, str, int]]]) -> None:
    """A Llama without attention, whose layers each add answers to words."""
    config = LlamaConfig(
        vocab_size=SIZE,
        hidden_size=SIZE,
        intermediate_size=SIZE,
        num_hidden_layers=len(layers),
        num_attention_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(SIZE))
        model.lm_head.weight.copy_(torch.eye(SIZE))
        for layer, added in zip(model.model.layers, layers, strict=True):
            layer.mlp.gate_proj.weight.copy_(torch.eye(SIZE))
            layer.mlp.up_proj.weight.copy_(torch.eye(SIZE))
            for word, answer, strength in added:
                layer.mlp.down_proj.weight[WORDS.index(answer), WORDS.index(word)] = strength / 128
    model.save_pretrained(folder)
    vocabulary = {word: place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_problems() -> None:
    """Two words each, of which the second is the question."""
    right = dict(zip(QUESTIONS, [f"a{n}" for n in (0, 1, 2, 3, 0, 1, 2, 3, 0)], strict=True))
    before = {"search": ("q0", "q1"), "dev": ("q2",), "test": ("q3",)}
    for split, firsts in before.items():
        rows = [
            {"question": f"{first} {asked}", "answer": right[asked]}
            for first in firsts
            for asked in QUESTIONS
        ]
        Path(f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def spec(study: str, **parts: Any) -> dict[str, Any]:
    """With relative paths, so that the folder can be moved."""
    data = {split: {"path": f"./{split}.jsonl"} for split in ("search", "dev", "test")}
    task = {"type": "generate", "data": data, "scorer": "exact", "max_new_tokens": 1}
    return {
        "study": study,
        "base_model": "./base",
        "models": {"a": "./a", "b": "./b"},
        "merge": {
            "method": "task_arithmetic",
            "weight": [0, 2],
            "layer_group_size": 1,
            "normalize": False,
        },
        "sampler": {"name": "cmaes", "seed": 1, "population": 4},
        "trials": 14,
        "tasks": {"words": task},
        "objectives": [{"maximize": "words.accuracy"}],
        **parts,
    }


def specs() -> dict[str, dict[str, Any]]:
    merge = spec("merge", stage="ps")
    path = spec("path", stage="dfs", stack={"repeats": 2}, racing={"blocks": 6, "p_threshold": 0.3})
    del path["base_model"], path["merge"]
    both = spec(
        "both",
        stage="ps+dfs",
        stack={"repeats": 2, "models": ["merged", "b"]},
        sampler={"name": "nsga2", "seed": 1, "population": 4},
        objectives=[{"maximize": "words.accuracy"}, {"minimize": "layers"}],
        constraints=["layers <= 6"],
    )
    return {"merge": merge, "path": path, "both": both}


URL = "sqlite:///studies.sqlite3"


def study(name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=URL)


def command(*arguments: str) -> str:
    run = [sys.executable, "-m", "evomerge_optuna", *arguments, "--storage", URL]
    return subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout


def make() -> None:
    """Studies with a failed trial, one that was enqueued, one that waits and one cut short."""
    for name, content in specs().items():
        create_study(parse_spec(content), URL)
        run_study(name, URL, trials=6)
        parameters = {"merge": "a.weight.g0", "both": "a.weight.g0"}
        if (parameter := parameters.get(name)) is not None:
            study(name).enqueue_trial({parameter: 1.25})  # the others are drawn
            study(name).enqueue_trial({parameter: 9.0})  # outside of its range: fails
            run_study(name, URL, trials=8)
    command("study", "test", "merge")
    study("merge").enqueue_trial({"a.weight.g0": 1.5, "b.weight.g1": 0.5})
    study("merge").enqueue_trial({"a.weight.g0": 0.25})
    study("merge").ask()  # as a worker leaves it that is killed as it takes a trial


def record() -> dict[str, list[dict[str, Any]]]:
    """What each study has, without seconds and workers, and with digests for recipes."""
    found = {name: [trial_of(t) for t in study(name).get_trials()] for name in specs()}
    return json.loads(json.dumps(found))


def trial_of(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    attributes = {k: v for k, v in trial.user_attrs.items() if k not in ("worker", "recipe")}
    if "result" in attributes:
        attributes["result"] = {
            k: v for k, v in attributes["result"].items() if k not in ("seconds", "threads")
        }
    return {
        "state": trial.state.name,
        "params": trial.params,
        "values": trial.values,
        "attributes": attributes,
        "generation": [v for k, v in trial.system_attrs.items() if k.endswith("generation")],
        "constraints": trial.constraints,
        "intermediate_values": list(trial.intermediate_values.items()),
    }


def go_on(more: int = 14) -> dict[str, Any]:
    """What this version makes of the studies: trials, tables, exported tensors."""
    found: dict[str, Any] = {}
    for name in specs():
        run_study(name, URL, trials=more)
        which = "knee" if name == "both" else "best"
        found[name] = {
            "final": json.loads(command("study", "test", name, "--trial", which, "--json")),
            "exported": export(name, f"out-{name}", URL, trial=which),
            "exported_trial_2": export(name, f"out-{name}-2", URL, trial=2),
        }
    for name, trials in record().items():
        found[name]["trials"] = trials
    return found


def main(folder: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True)
    chdir(folder)
    for name, layers in ADDED.items():
        save_model(Path(name), layers)
    save_problems()
    make()
    with closing(sqlite3.connect("studies.sqlite3")) as connection:
        connection.execute("DELETE FROM study_system_attributes WHERE key LIKE 'dashboard:plot%'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
    copied = Path("copied")
    shutil.copytree(".", copied, ignore=shutil.ignore_patterns("copied"))
    chdir(copied)
    found = go_on()
    chdir("..")
    shutil.rmtree("copied")
    Path("continued.json").write_text(_with_a_line_each(found))


def _with_a_line_each(found: dict[str, Any]) -> str:
    """A JSON document with a line for each trial."""
    text = json.dumps(found)
    return text.replace('{"state"', '\n{"state"').replace('"both": {', '\n"both": {') + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
