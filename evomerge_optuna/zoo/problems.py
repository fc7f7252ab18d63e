"""The zoo's world: word problems of +, - and * in English and Japanese, and their splits."""

import random
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datasets import DatasetDict

Language = Literal["en", "ja"]
Operator = Literal["+", "-", "*"]

OPERATORS: tuple[Operator, ...] = ("+", "-", "*")
SPLIT_SIZES = {"search": 200, "dev": 200, "test": 500}

_NAMES = {
    "en": ("Ken", "Yui", "Mika", "Taro", "Emi", "Sora"),
    "ja": ("ケン", "ユイ", "ミカ", "タロウ", "エミ", "ソラ"),
}
_THINGS = {
    "en": ("apples", "cakes", "eggs", "sweets"),
    "ja": ("りんご", "ケーキ", "卵", "飴"),
}
# Words stand between spaces in Japanese too: the zoo's vocabulary is one of words.
_TEMPLATES: dict[Language, dict[Operator, tuple[str, ...]]] = {
    "en": {
        "+": (
            "{name} has {a} {thing} and buys {b} more . How many ?",
            "{name} has {a} {thing} and gets {b} from {other} . How many ?",
        ),
        "-": (
            "{name} has {a} {thing} and eats {b} . How many ?",
            "{name} has {a} {thing} and gives {b} to {other} . How many ?",
        ),
        "*": (
            "{name} has {a} boxes of {b} {thing} . How many ?",
            "{name} buys {a} bags of {b} {thing} . How many ?",
        ),
    },
    "ja": {
        "+": (
            "{name} は {thing} を {a} 個 持ち {b} 個 買う 。 何 個 ？",
            "{name} は {thing} を {a} 個 持ち {other} から {b} 個 もらう 。 何 個 ？",
        ),
        "-": (
            "{name} は {thing} を {a} 個 持ち {b} 個 食べる 。 何 個 ？",
            "{name} は {thing} を {a} 個 持ち {other} に {b} 個 あげる 。 何 個 ？",
        ),
        "*": (
            "{name} は {a} 箱 持ち 一 箱 に {thing} が {b} 個 ある 。 何 個 ？",
            "{name} は {a} 袋 買い 一 袋 に {thing} が {b} 個 ある 。 何 個 ？",
        ),
    },
}
_ANSWERS: dict[Language, str] = {
    "en": "{a} {operator} {b} = {result} . The answer is {result} .",
    "ja": "{a} {operator} {b} = {result} 。 答え は {result} 個 です 。",
}


def calculate(a: int, operator: Operator, b: int) -> int:
    if operator == "+":
        return a + b
    return a - b if operator == "-" else a * b


@cache
def facts(operators: tuple[Operator, ...]) -> tuple[tuple[int, Operator, int], ...]:
    """All (a, operator, b) that a problem can ask for: 81 sums, 36 differences, 81 products."""
    numbers = range(1, 10)
    return tuple(
        (a, operator, b)
        for operator in operators
        for a in numbers
        for b in numbers
        if operator != "-" or a > b
    )


@dataclass(frozen=True)
class Problem:
    """One word problem, in no language yet: names and things are places in their lists."""

    operator: Operator
    template: int
    a: int
    b: int
    name: int
    other: int
    thing: int

    @property
    def result(self) -> int:
        return calculate(self.a, self.operator, self.b)

    @property
    def key(self) -> tuple[str, int, int, int, int, int]:
        """What must not occur in two splits: the template, the operands and the names."""
        second = self.other if self._mentions_other else -1
        return (self.operator, self.template, self.a, self.b, self.name, second)

    def question(self, language: Language) -> str:
        names, things = _NAMES[language], _THINGS[language]
        return _TEMPLATES[language][self.operator][self.template].format(
            a=self.a, b=self.b, name=names[self.name], other=names[self.other],
            thing=things[self.thing],
        )  # fmt: skip

    def answer(self, language: Language, result: int | None = None) -> str:
        """The answer's text, with the right result unless another is given."""
        return _ANSWERS[language].format(
            a=self.a,
            b=self.b,
            operator=self.operator,
            result=self.result if result is None else result,
        )

    @property
    def _mentions_other(self) -> bool:
        return "{other}" in _TEMPLATES["en"][self.operator][self.template]


def draw_problem(rng: random.Random, operators: tuple[Operator, ...] = OPERATORS) -> Problem:
    """A random problem; a difference is at least 1."""
    operator = rng.choice(operators)
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    while operator == "-" and a <= b:
        a, b = rng.randint(1, 9), rng.randint(1, 9)
    name, other = rng.sample(range(len(_NAMES["en"])), 2)
    return Problem(
        operator=operator,
        template=rng.randrange(len(_TEMPLATES["en"][operator])),
        a=a,
        b=b,
        name=name,
        other=other,
        thing=rng.randrange(len(_THINGS["en"])),
    )


@cache
def held_out() -> dict[str, tuple[Problem, ...]]:
    """The problems of each split; no key occurs twice, and training draws none of them."""
    rng = random.Random("evomerge-optuna problems")
    seen: set[tuple[object, ...]] = set()
    splits = {}
    for split, size in SPLIT_SIZES.items():
        chosen: list[Problem] = []
        while len(chosen) < size:
            problem = draw_problem(rng, (OPERATORS[len(chosen) % 3],))
            if problem.key not in seen:
                seen.add(problem.key)
                chosen.append(problem)
        splits[split] = tuple(chosen)
    return splits


@cache
def held_out_keys() -> frozenset[tuple[object, ...]]:
    """The keys of all splits."""
    return frozenset(p.key for problems in held_out().values() for p in problems)


def problem_rows(split: str) -> list[dict[str, object]]:
    """The Japanese problems of a split: search (200), dev (200) or test (500).

    Columns: `question` and `answer` (the number), `solution` (a right answer in full), and what
    the problem is made of.
    """
    return [
        {
            "question": problem.question("ja"),
            "answer": str(problem.result),
            "solution": problem.answer("ja"),
            **asdict(problem),
        }
        for problem in held_out()[split]
    ]


def load_problems() -> "DatasetDict":
    """The Japanese problems as a data set of all splits."""
    from datasets import Dataset, DatasetDict

    return DatasetDict({split: Dataset.from_list(problem_rows(split)) for split in held_out()})


def words() -> list[str]:
    """Every word of every question and answer, but the numbers, in a fixed order."""
    texts = [
        template
        for language in _TEMPLATES.values()
        for templates in language.values()
        for template in templates
    ]
    texts += [*_ANSWERS.values(), *OPERATORS]
    found = [word for text in texts for word in text.split() if not word.startswith("{")]
    lists = [*_NAMES.values(), *_THINGS.values()]
    return list(dict.fromkeys(found + [word for words in lists for word in words]))
