"""Do others find the same numbers in answers: ours beside lm-evaluation-harness and math-verify.

    python benchmarks/agreement.py MODEL MGSM_FOLDER [--each 20] [--new-tokens 200]
        [--answers PATH] [--json PATH]

A model answers MGSM's problems in English, Spanish and Japanese, asked in four styles: as they are,
for a \\boxed{} as Qwen's and as Llama's templates do, and after shots that end with "#### 18".
Beside them stand answers written here, in the notations that people and languages have. Each is
scored by `last_number` and `math`, by the harness's two filters for gsm8k (strict-match,
flexible-extract) with its exact_match, and by math-verify alone: with the right answer as the
reference, and with what the harness's flexible filter found in it, so that half of the verdicts are
"right" although the model is small.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import yaml

from evomerge_optuna.evaluation.scorers import score_text

ASKED = {
    "plain": "",
    "qwen": "Please reason step by step, and put your final answer within \\boxed{}.",
    "llama": "Solve the following math problem step by step, and conclude with: Therefore, the "
    "final answer is: $\\boxed{answer}$. I hope it is correct.",
    "gsm8k": "End your answer with a line of the form: #### 18",
}
SHOTS = [
    ("Tom has 3 boxes of 6 pens. How many pens?", "3 boxes of 6 pens are 3*6 = 18 pens.\n#### 18"),
    ("Ana pays 70,000 and 2,000. How much?", "She pays 70,000 + 2,000 = 72,000.\n#### 72,000"),
]
# A text for the number {}, the language, and how numbers are written in it.
FRAMES = [
    ("Adding up, 3 * 6 = 18, so the total is \\boxed{{{}}}.", "en"),
    ("Therefore, the final answer is: $\\boxed{{{}}}$. I hope it is correct.", "en"),
    ("He buys 3 boxes.\n#### {}", "en"),
    ("**Answer:** {}", "en"),
    ("The answer is {}.", "en"),
    ("La respuesta es {}.", "es"),
    ("したがって、答えは{}です。", "ja"),
]
NOTATIONS = {
    "18": ["18", "18.0", "$18", "\\$18", "18\\text{ dollars}", "**18**", "十八", "１８", "17"],
    "72000": ["72000", "72,000", "72{,}000", "72\\,000", "72 thousand", "7万2千", "7.2万",
              "72.000", "$72,000.00", "\\$72{,}000", "7200"],
    "-5": ["-5", "-$5", "$-5", "−5", "\\(-5\\)", "マイナス5", "5"],
    "0.75": ["0.75", "3/4", "\\frac{3}{4}", "\\dfrac34", ".75", "0,75", "75%", "¾", "4分の3",
             "1/4"],
    "2.5": ["2.5", "2 1/2", "2\\frac{1}{2}", "5/2", "2½", "2,5", "2.50", "25"],
}  # fmt: skip


@dataclass(frozen=True)
class Response:
    """A text, the answers it is scored beside, and where it comes from."""

    text: str
    references: tuple[str, ...]
    language: str
    origin: str


def written() -> Iterator[Response]:
    """The answers written here."""
    for number, spellings in NOTATIONS.items():
        for spelling in spellings:
            for frame, language in FRAMES:
                yield Response(frame.format(spelling), (number,), language, "written")


def generated(model: str, folder: Path, each: int, new_tokens: int) -> Iterator[Response]:
    """What the model answers to so many problems in each language and style."""
    from evomerge_optuna.engines import load_engine
    from evomerge_optuna.engines.base import Greedy
    from evomerge_optuna.spec import EvaluationSpec

    engine = load_engine(Path(model), EvaluationSpec(device="cpu", batch_size=20))
    tokenizer = engine.reader.tokenizer
    for place, (style, system) in enumerate(ASKED.items()):
        for language in ("en", "es", "ja"):
            lines = (folder / f"mgsm_{language}.tsv").read_text(encoding="utf-8").splitlines()
            rows = [line.split("\t") for line in lines[place * each : (place + 1) * each]]
            prompts = [_prompt(tokenizer, style, system, question) for question, _ in rows]
            texts = engine.generate(prompts, Greedy(new_tokens))
            for text, (_, answer) in zip(texts, rows, strict=True):
                yield Response(text, (answer,), language, style)


def _prompt(tokenizer: Any, style: str, system: str, question: str) -> str:
    turns = [{"role": "system", "content": system}] if system else []
    for asked, answer in SHOTS if style == "gsm8k" else []:
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    turns += [{"role": "user", "content": question}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


class Harness:
    """The filters and the metric of the harness's own gsm8k."""

    def __init__(self) -> None:
        path = files("lm_eval") / "tasks" / "gsm8k" / "gsm8k.yaml"
        self.task = yaml.safe_load(path.read_text(encoding="utf-8"))
        self.ignored = self.task["metric_list"][0]["regexes_to_ignore"]

    def found(self, name: str, text: str) -> str:
        from lm_eval.filters.extraction import RegexFilter

        settings = next(f for f in self.task["filter_list"] if f["name"] == name)["filter"][0]
        given = {key: value for key, value in settings.items() if key != "function"}
        return str(RegexFilter(**given).apply([[text]], [{}])[0][0])

    def right(self, found: str, reference: str) -> bool:
        from lm_eval.api.metrics import exact_match_hf_evaluate

        settings = {"ignore_case": True, "regexes_to_ignore": self.ignored}
        return bool(exact_match_hf_evaluate([found], [reference], **settings)["exact_match"])

    def number(self, found: str) -> str:
        """What is compared of what was found."""
        for pattern in self.ignored:
            found = re.sub(pattern, "", found)
        return found


def math_verify(text: str, reference: str) -> bool:
    """math-verify alone, the reference as LaTeX, as its documentation has it."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${reference}$"), parse(text)))


@dataclass(frozen=True)
class Verdicts:
    """What everyone says of a response beside a reference."""

    response: Response
    reference: str
    found: str | None
    last_number: bool
    math: bool
    strict: bool
    flexible: bool
    math_verify: bool


def judge(harness: Harness, response: Response) -> Iterator[Verdicts]:
    strict, flexible = (
        harness.found(n, response.text) for n in ("strict-match", "flexible-extract")
    )
    references = dict.fromkeys([*response.references, harness.number(flexible)])
    for reference in references:
        if not re.fullmatch(r"-?[\d,]+(\.\d+)?", reference):
            continue
        found, ours = score_text("last_number", response.text, reference, response.language)
        yield Verdicts(
            response,
            reference,
            found,
            ours == 1,
            score_text("math", response.text, reference, response.language)[1] == 1,
            harness.right(strict, reference),
            harness.right(flexible, reference),
            math_verify(response.text, reference),
        )


@click.command(help=__doc__)
@click.argument("model")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.option("--each", default=20, help="Problems in each style and language.")
@click.option("--new-tokens", default=200)
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help="Where the model's answers are kept, and read from the next time.",
)
@click.option("--json", "path", type=click.Path(path_type=Path))
def main(
    model: str, folder: Path, each: int, new_tokens: int, answers: Path | None, path: Path | None
) -> None:
    harness = Harness()
    if answers is not None and answers.exists():
        lines = answers.read_text(encoding="utf-8").split("\n")
        responses = [Response(**json.loads(line)) for line in lines]
    else:
        responses = list(generated(model, folder, each, new_tokens))
    if answers is not None:
        _write(answers, responses)
    responses += written()
    verdicts = [verdict for response in responses for verdict in judge(harness, response)]
    for origins in (tuple(ASKED), ("written",)):
        chosen = [v for v in verdicts if v.response.origin in origins]
        texts = len({v.response.text for v in chosen})
        click.echo(f"{', '.join(origins)}: {texts} responses, {len(chosen)} verdicts")
        for ours in ("last_number", "math"):
            for theirs in ("strict", "flexible", "math_verify"):
                pairs = [(getattr(v, ours), getattr(v, theirs)) for v in chosen]
                same = sum(a == b for a, b in pairs)
                alone = [sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)]
                click.echo(f"  {ours} and {theirs}: {same} agree; {alone[0]} right by us alone, "
                           f"{alone[1]} by them alone")  # fmt: skip
    if path is not None:
        _write(path, verdicts)


def _write(path: Path, items: list[Any]) -> None:
    lines = (json.dumps(asdict(item), ensure_ascii=False) for item in items)
    path.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
