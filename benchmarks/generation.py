"""How fast are problems answered: plain batches of `model.generate`, our batches, and vLLM.

    python benchmarks/generation.py [--problems 64] [--repeats 3] [--threads 1] [--json PATH]

Three models answer in turns, in float32 and in bfloat16: `zoo:mul`, whose answers are all about as
long; a merge as a search tries them, some of whose answers never end; and a random one of the shape
of SmolLM2-135M, whose answers all have 64 tokens. Plain batches are padded, in the order of the
data, and go on until their last answer ends. vLLM is measured where it is installed, as in
.venv-vllm. The weights are put into it anew before each turn, or it would know the prompts.

Forward passes are counted, too: where reading the weights takes most of the time, as on a GPU, each
costs the same.
"""

import importlib.util
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge_optuna.engines import load_engine
from evomerge_optuna.engines.base import Greedy, TextEngine
from evomerge_optuna.engines.live import live_model
from evomerge_optuna.engines.vllm_engine import VllmEngine, frame_of
from evomerge_optuna.merging.recipe_merger import write_recipe
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.shards import read_tensors
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.spec import EvaluationSpec
from evomerge_optuna.zoo.problems import load_problems

WEIGHTS = {"zoo:ja": 2.0, "zoo:add": 1.5, "zoo:mul": 1.0}
NEW_TOKENS = 64
SHOTS = 5
WARM_UP = 8  # prompts
SHAPES: dict[str, dict[str, int]] = {
    "135M": {  # SmolLM2's
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 256,
    },
}


@dataclass(frozen=True)
class Workload:
    """Prompts for a model, and what they are to show."""

    model: str
    name: str
    prompts: list[str]


def of_the_zoo(problems: int) -> dict[str, list[str]]:
    """So many of the zoo's problems: alone; after the same examples; after some of their own."""
    drawn = random.Random(0)
    splits = load_problems()
    solved = [f"{row['question']} {row['solution']}" for row in splits["dev"]]
    questions = list(splits["search"]["question"][:problems])
    examples = " ".join(solved[:SHOTS])
    mixed = [
        " ".join([*drawn.sample(solved, drawn.randint(0, SHOTS)), question])
        for question in questions
    ]
    return {
        "alone": questions,
        f"after {SHOTS} shared examples": [f"{examples} {q}" for q in questions],
        f"after 0 to {SHOTS} examples of their own": mixed,
    }


def of_mixed_lengths(problems: int, words: int) -> dict[str, list[str]]:
    drawn = random.Random(0)
    prompts = [
        " ".join(f"w{drawn.randrange(words)}" for _ in range(drawn.randint(20, 200)))
        for _ in range(problems)
    ]
    return {"of 20 to 200 tokens": prompts}


def write_merge(folder: Path) -> None:
    configuration = {
        "merge_method": "task_arithmetic",
        "base_model": "zoo:base",
        "models": [{"model": m, "parameters": {"weight": w}} for m, w in WEIGHTS.items()],
        "parameters": {"normalize": False},
    }
    write_recipe(MergeRecipe(configuration=configuration, seed=0), folder, "cpu")


def save_random(folder: Path, shape: dict[str, int], seed: int = 0, tied: bool = True) -> None:
    """A random model that no answer ends, in float32; its words are w0, w1 and so on."""
    vocabulary = {f"w{number}": number for number in range(shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(seed)
    config = LlamaConfig(
        **shape,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0").save_pretrained(folder)


@dataclass(frozen=True)
class Run:
    """What it took to answer.

    Attributes:
        processor: seconds of the processor, which depend less on what else the machine does.
        put_in: seconds that the weights took before, where they were put in.
    """

    seconds: float
    processor: float
    passes: int
    answers: list[str]
    put_in: float | None = None


Way = Callable[[list[str]], Run]


def ways(folder: Path, spec: EvaluationSpec) -> dict[str, Way]:
    """All that answers prompts with this model."""
    engine = load_engine(folder, spec)
    raw = engine.raw("a benchmark")
    plainly = partial(generate_plainly, raw.model, raw.tokenizer, spec.batch_size)
    found: dict[str, Way] = {
        "plain": partial(measure, engine, plainly),
        "ours": partial(measure, engine, partial(engine.generate, how=Greedy(NEW_TOKENS))),
    }
    if importlib.util.find_spec("vllm"):
        found["vLLM"] = in_vllm(folder, spec.model_copy(update={"engine": "vllm"}))
    return found


@torch.inference_mode()
def generate_plainly(model: Any, tokenizer: Any, batch_size: int, prompts: list[str]) -> list[str]:
    """The usual way: batches in the order of the data, each as long as its longest answer."""
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        some = prompts[start : start + batch_size]
        batch = tokenizer(some, padding=True, padding_side="left", return_tensors="pt")
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        new = output[:, batch["input_ids"].shape[1] :]
        answers += tokenizer.batch_decode(new, skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def in_vllm(folder: Path, spec: EvaluationSpec) -> Way:
    frame, tensors = frame_of(folder, spec), list(read_tensors(folder))
    live = live_model(frame.network, spec)

    def answer(prompts: list[str]) -> Run:
        start = time.perf_counter()
        live.put_in(tensors)
        put_in = time.perf_counter() - start
        engine = VllmEngine(live, frame)
        return measure(engine, partial(engine.generate, how=Greedy(NEW_TOKENS)), prompts, put_in)

    return answer


def measure(
    engine: TextEngine,
    answer: Callable[[list[str]], list[Any]],
    prompts: list[str],
    put_in: float | None = None,
) -> Run:
    passes: list[None] = []
    with engine.counting(lambda: passes.append(None)):
        start, before = time.perf_counter(), time.process_time()
        answers = answer(prompts)
        seconds, processor = time.perf_counter() - start, time.process_time() - before
    return Run(seconds, processor, len(passes), [str(text) for text in answers], put_in)


@dataclass(frozen=True)
class Row:
    """A model's workload; by the ways, problems a second, times plain's, and forward passes.

    Attributes:
        vllm_times: our seconds by vLLM's, of the clock and of the processor.
        alike: the share of answers that are the same both ways, ours and the other.
        put_in: seconds that vLLM takes to put the weights in.
    """

    dtype: str
    model: str
    workload: str
    rates: dict[str, float]
    times: dict[str, float]
    passes: dict[str, int]
    vllm_times: list[float]
    alike: dict[str, float]
    put_in: float | None

    @classmethod
    def of(cls, dtype: str, work: Workload, turns: list[dict[str, Run]]) -> "Row":
        last, names = turns[-1], list(turns[-1])

        def ratio(one: str, other: str, of: str = "seconds") -> float:
            pairs = [(getattr(turn[one], of), getattr(turn[other], of)) for turn in turns]
            return statistics.median(a / b for a, b in pairs)

        def seconds(way: str) -> float:
            return statistics.median(turn[way].seconds for turn in turns)

        put = [run.put_in for turn in turns for run in turn.values() if run.put_in is not None]
        clocks = ("seconds", "processor") if "vLLM" in last else ()
        problems = len(work.prompts)
        return cls(
            dtype=dtype,
            model=work.model,
            workload=work.name,
            rates={way: problems / seconds(way) for way in names},
            times={way: ratio("plain", way) for way in names},
            passes={way: run.passes for way, run in last.items()},
            vllm_times=[ratio("ours", "vLLM", of) for of in clocks],
            alike={
                way: sum(map(str.__eq__, run.answers, last["ours"].answers)) / problems
                for way, run in last.items()
                if way != "ours"
            },
            put_in=statistics.median(put) if put else None,
        )

    def cells(self) -> list[str]:
        """Of one row of a Markdown table."""
        vllm = "vLLM" in self.rates
        return [
            self.dtype,
            self.model,
            self.workload,
            *(f"{rate:.3g}" for rate in self.rates.values()),
            f"{self.times['ours']:.2f}",
            *(f"{times:.2f}" for times in self.vllm_times),
            ", ".join(map(str, self.passes.values())),
            ", ".join(f"{share:.1%}" for share in self.alike.values()),
            *([f"{self.put_in:.3f}"] if vllm else []),
        ]


def header(ways: list[str]) -> list[str]:
    vllm = "vLLM" in ways
    return [
        "dtype",
        "model",
        "problems",
        *(f"{way}, problems/s" for way in ways),
        "ours / plain",
        *(["vLLM / ours", "the same of the processor's time"] if vllm else []),
        f"forward passes: {', '.join(ways)}",
        f"answers as ours: {', '.join(way for way in ways if way != 'ours')}",
        *(["put in, s"] if vllm else []),
    ]


@click.command()
@click.option("--problems", default=64, show_default=True, type=click.IntRange(1))
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1))
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option(
    "--shape",
    default="135M",
    show_default=True,
    type=click.Choice(list(SHAPES)),
    help="Of the random model.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    problems: int, batch_size: int, repeats: int, threads: int, shape: str, json_file: Path | None
) -> None:
    """Print problems a second and their ratios, medians of the turns."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(threads)  # vLLM takes it over when it starts
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folders = {
            "zoo:mul": local_folder("zoo:mul"),
            "a merge": Path(name) / "merge",
            f"random {shape}": Path(name) / "random",
        }
        write_merge(folders["a merge"])
        save_random(folders[f"random {shape}"], SHAPES[shape])
        prompts = {model: of_the_zoo(problems) for model in folders}
        prompts[f"random {shape}"] = of_mixed_lengths(problems, SHAPES[shape]["vocab_size"])
        for dtype, (model, folder) in itertools.product(("float32", "bfloat16"), folders.items()):
            spec = EvaluationSpec(device="cpu", batch_size=batch_size, dtype=dtype)
            answering = ways(folder, spec)
            if not rows:
                click.echo(f"| {' | '.join(header(list(answering)))} |")
            for workload, texts in prompts[model].items():
                for way in answering.values():
                    way(texts[:WARM_UP])
                turns = [
                    {which: way(texts) for which, way in answering.items()} for _ in range(repeats)
                ]
                rows.append(Row.of(dtype, Workload(model, workload, texts), turns))
                click.echo(f"| {' | '.join(rows[-1].cells())} |")
    if json_file:
        sizes = {"problems": problems, "batch size": batch_size, "threads": threads}
        json_file.write_text(json.dumps(sizes | {"rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
