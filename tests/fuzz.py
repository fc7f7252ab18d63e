"""Wrong specs, recipes, URLs and data files without end: `python -m tests.fuzz --examples 100000`.

Each is read, or refused in one short line that names no secret. What is read survives its own
text. The ordinary suite runs a few hundred of each; see test_fuzz.py.
"""

import copy
import datetime
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge_optuna.errors import UsageError
from evomerge_optuna.recipes.recipe import parse_recipe
from evomerge_optuna.spec import StudySpec, differences, load_spec, parse_spec
from evomerge_optuna.store.urls import parse_url, shown
from tests.data_files import DataFile, check_data_file, data_files

STUDIES = Path(__file__).parent.parent / "studies"
SECRET = "hunter2"  # no strategy makes it by chance

MERGE = {
    "configuration": {
        "merge_method": "ties",
        "base_model": "zoo:base",
        "models": [{"model": "zoo:add", "parameters": {"weight": [0.5, -0.0], "density": 1}}],
        "parameters": {"int8_mask": True, "lambda": 1e-05},
        "dtype": "bfloat16",
    },
    "seed": 7,
}
STEPS = [{"model": "merged", "layer": 0, "scale": 1.0}, {"model": "zoo:ja", "layer": 5}]
STACK = {"embeddings": "merged", "steps": STEPS, "head": "zoo:ja", "dtype": "float16"}
RECIPES: list[Any] = [MERGE, STACK, STACK | {"merges": {"merged": MERGE}}]

# What the shipped specs do not say.
QUICK = yaml.safe_load((STUDIES / "quickstart.yaml").read_text(encoding="utf-8"))
TASKS = {
    "text": {"type": "perplexity", "data": "hub/data", "text": "{text}\n"},
    "data": {
        "type": "generate",
        "data": {"search": {"path": "a.csv", "name": "x", "columns": ["q", "a"], "answer": "a"}},
        "prompt": "{q}{{",
        "language": "ja",
    },
}
MORE = {
    "tasks": TASKS,
    "sampler": {"name": "nsga3", "seed": 1, "population": 9},
    "objectives": [{"maximize": "data.language_share"}, {"minimize": "text.perplexity"}],
    "constraints": ["text.perplexity <= 30.25", "data.accuracy >= 1e-05"],
    "warm_start": ["other"],
    "evaluation": {"batch_size": 8, "device": "cpu", "memory_limit": "1.5GiB", "max_retries": 0},
}
STACKED = {
    "stack": {"repeats": 2, "scale": "step", "max_layers": 9, "anchors": 1, "head": "first"},
    "constraints": ["layers <= 9", {"target": "parameters", "relation": ">=", "bound": 0.1}],
}
STAGED = {key: part for key, part in QUICK.items() if key not in ("base_model", "merge")}
HARNESS = {
    **{"type": "lm_eval", "task": "t", "include_path": "tasks", "metric": "f1", "filter": "none"},
    **{"data": {"search": "[:9]", "dev": "train[9:-9]", "test": "test"}, "num_fewshot": 2},
}
SPECS: list[Any] = [
    *(yaml.safe_load(load_spec(file).to_yaml()) for file in sorted(STUDIES.glob("*.yaml"))),
    QUICK | {"tasks": {"math": HARNESS}, "objectives": [{"maximize": "math.f1"}]},
    QUICK | {"racing": {"blocks": 12, "p_threshold": 0.05}},
    QUICK | MORE | {"merge": {"method": "dare_ties", "weight": [-1, 2], "lambda": 0.3}},
    QUICK | MORE | STACKED | {"stage": "ps+dfs"},
    STAGED | MORE | STACKED | {"stage": "ps+dfs", "from_study": "first", "merged": MERGE},
]

SCALARS = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, 1e-9),
        *(math.nan, math.inf, -math.inf, "", " ", "\x00", "\x1b[2J", "\n", "\x85", "\u2028"),
        *("\ud800", "\ufeff", "\U0001f600", "日本", "x" * 5000, "1e999GB", "9" * 400 + "GB"),
        *("{", "{}", "{0}", "{a.b}", "{a!r}", "{a:{b}}", "~", "~nobody/x", "./" + "x/" * 3000),
        *("layers >= nan", "layers >= 1e999", "layers >= 0.12345678901234567", "yes", "1:30"),
        *(datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1), b"bytes", b"\xff\x00", 1j),
        *(frozenset("ab"), object, range(3), (0.25, 0.5), (1,)),
    ]
)  # fmt: skip


def nodes(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all parts of a content, its own first."""
    yield path
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, part in items:
            yield from nodes(part, (*path, key))


def at(content: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        content = content[key]
    return content


def nested(depth: int, kind: type) -> Any:
    part: Any = 0
    for _ in range(depth):
        part = [part] if kind is list else {"a": part}
    return part


def mutated(bases: list[Any]) -> st.SearchStrategy[Any]:
    """One of these contents with one to three of its parts replaced, removed, added or renamed."""
    parts = [at(base, path) for base in bases for path in nodes(base)]
    some_part = st.sampled_from(parts).map(copy.deepcopy)  # what is added may be changed next
    keys = sorted({str(key) for base in bases for path in nodes(base) for key in path})
    values = (
        SCALARS
        | some_part
        | st.text(max_size=8)
        | st.integers(-3, 300)
        | st.floats()
        | st.lists(SCALARS | some_part, max_size=3)
        | st.dictionaries(st.sampled_from(keys), SCALARS, max_size=2)
        | st.builds(nested, st.sampled_from([3, 50, 200]), st.sampled_from([list, dict]))
    )
    odd_keys = st.sampled_from([*keys, "", "x" * 3000, "\x1b\n", "\ud800", None, 1, True, (1, 2)])
    any_key = odd_keys | st.text(max_size=5)

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        content = copy.deepcopy(draw(st.sampled_from(bases)))
        for _ in range(draw(st.integers(0, 3))):
            path = draw(st.sampled_from(list(nodes(content))))
            holder, part = at(content, path[:-1]), at(content, path)
            how = draw(st.sampled_from(["replace", "remove", "add", "rename", "wrap", "nudge"]))
            if how == "add" and isinstance(part, dict):
                part[draw(any_key)] = draw(values)
            elif how == "add" and isinstance(part, list):
                part.append(draw(values))
            elif not path:
                continue  # the whole is a mapping, as load_spec sees to
            elif how == "remove":
                del holder[path[-1]]
            elif how == "rename" and isinstance(holder, dict):
                holder[draw(any_key)] = holder.pop(path[-1])
            elif how == "wrap":
                holder[path[-1]] = draw(st.sampled_from([[part], {"a": part}, (part,)]))
            elif how == "nudge" and isinstance(part, str):
                holder[path[-1]] = draw(edited(part))
            else:
                holder[path[-1]] = draw(values)
        return content

    return change()


@st.composite
def edited(draw: st.DrawFn, text: str, pieces: st.SearchStrategy[str] | None = None) -> str:
    """The text with some stretch of it replaced."""
    first = draw(st.integers(0, len(text)))
    last = min(len(text), first + draw(st.integers(0, 3)))
    piece = draw(pieces if pieces is not None else st.text(max_size=2))
    return text[:first] + piece + text[last:]


def _bomb(levels: int, form: str) -> str:
    lines = ["a0: &a0 {k: v}"]
    for n in range(1, levels):
        one = f"*a{n - 1}"
        lines.append(f"a{n}: &a{n} " + form.format(*[one] * 9))
    return "\n".join(lines)


BOMBS = [
    _bomb(levels, form)
    for levels in (3, 30, 300)
    for form in (
        "[{},{},{},{},{},{},{},{},{}]",
        "{{<<: [{},{},{},{},{},{},{},{},{}]}}",
        "{{a: {}, b: {}, c: {}, d: {}, e: {}}}",
        "{{a: {}}}",
    )
]
TAGS = ["int", "float", "bool", "null", "timestamp", "binary", "set", "omap", "pairs", "seq", "map",
        "str", "merge", "value", "python/object:os.system", "python/name:os.system"]  # fmt: skip
TRICKS = st.sampled_from(
    [
        *BOMBS,
        *(f"study: !!{tag} {value}\n" for tag in TAGS for value in ("x", "''", "[a]", "{a: 1}")),
        *("&a [*a]", "&a {b: *a}", "&a {<<: *a}", "{<<: x}", "*b", "? [a]\n: b", "=: 1"),
        *("---\n", "...\n", "%YAML 9.9\n---\n", "!", "!<", "!!", "&", "*", "|\n", "\t", "'"),
        *("2024-13-45", "0x" + "f" * 5000, "9" * 5000, "1" + ":0" * 3000, "0x_", "-.inf"),
        *("[" * 3000, "{a: " * 1500, "- " * 3000, "\\x00", '"\\ud800"', '"\\0"', "\ufeff", "\x00"),
        *("? " * 500, "a: " * 500, "#" * 5000, "!!binary AA==", "!!set {a, b}", "trials: 5\n"),
    ]
)  # fmt: skip


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Spec files: changed as text, with YAML's tricks among them, or no YAML at all."""
    if not draw(st.integers(0, 9)):
        return draw(
            st.binary(max_size=40) | st.text(max_size=40).map(_encoded) | TRICKS.map(_encoded)
        )
    if draw(st.booleans()):
        try:
            text = yaml.dump(draw(mutated(SPECS)), Dumper=yaml.CSafeDumper, sort_keys=False)
        except (yaml.YAMLError, RecursionError, ValueError):  # YAML cannot say it
            text = ""
    else:
        text = draw(st.sampled_from(SPEC_TEXTS))
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        line = draw(st.integers(0, max(0, len(lines) - 1)))
        how = draw(st.sampled_from(["edit", "trick", "value", "twice", "cut"]))
        if how == "edit" and lines:
            lines[line] = draw(edited(lines[line], TRICKS | st.text(max_size=2)))
        elif how == "value" and lines:
            lines[line] = lines[line].partition(":")[0] + f": {draw(TRICKS)}\n"
        elif how == "twice" and lines:
            lines.insert(line, lines[line])
        elif how == "cut":
            del lines[line:]
        else:
            lines.insert(line, draw(TRICKS) + "\n")
    return _encoded("".join(lines))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


SPEC_TEXTS = [yaml.safe_dump(spec, sort_keys=False, allow_unicode=True) for spec in SPECS]


@st.composite
def urls(draw: st.DrawFn) -> str:
    """Storage URLs, most of them with a secret in password or query, some with slips of the pen."""
    odd = st.text("@:/?#%&=[]+~ x\x00\n\ud800日1", max_size=3)
    scheme = draw(st.sampled_from(["postgres", "postgresql", "postgresql+psycopg", "sqlite",
                                   "mysql", "postgresql+psycopg2", "x" * 5000]))  # fmt: skip
    name = draw(st.sampled_from(["me", "", "a%40b", "a@b"]))
    password = f":{draw(odd)}{SECRET}{draw(odd)}{draw(st.sampled_from(['', SECRET]))}"
    who = draw(st.sampled_from([f"{name}{password}@", f"{name}@", ":@", ""]))
    host = draw(st.sampled_from(["host", "host:5432", "[::1]", "", "h:x", "h:" + "9" * 5000]))
    database = draw(st.sampled_from(
        ["/db", "//tmp/a.db", "/~/a", "/~nobody/a", "/a%3Fb", "/%00", "/:memory:", "/", "",
         "/" + "x" * 5000, "/file:a", f"/me:{SECRET}@host/db", f"/db;password={SECRET}",
         f"/postgresql://me:{SECRET}@host/db"]))  # fmt: skip
    query = draw(st.sampled_from(
        [f"?password={SECRET}", f"?timeout={SECRET}", f"?{SECRET}", "?", "", "?a&a=&a=1",
         f"?host={SECRET}:x&host=b:{SECRET}", f"?PASSWORD={SECRET}", f"?{SECRET}=1",
         f"?password=a&password={SECRET}"]))  # fmt: skip
    text = f"{scheme}://{who}{host}{database}{query}"
    parts = [draw(odd) for _ in range(2)]
    if draw(st.booleans()):  # amid all that is no secret
        text = text.replace("host", f"h{parts[0]}").replace("db", f"d{parts[1]}")
    return text


def refusal(error: UsageError) -> None:
    """Is it an error as it should be: one short line, without a secret?"""
    message = str(error)
    assert message.isprintable() and 10 < len(message) < 2000, message
    assert SECRET not in message, message


def check_spec(content: dict[str, Any]) -> bool:
    """Is it a spec? Then it survives YAML and JSON."""
    try:
        spec = parse_spec(content)
    except UsageError as error:
        refusal(error)
        return False
    _survives(spec)
    return True


def _survives(spec: StudySpec) -> None:
    text = spec.to_yaml()
    assert parse_spec(yaml.safe_load(text)) == spec, text
    stored = json.loads(json.dumps(spec.model_dump(mode="json", by_alias=True)))
    assert parse_spec(stored) == spec, text
    assert differences(spec, parse_spec(stored)) == []


SCRATCH = tempfile.TemporaryDirectory(prefix="evomerge-fuzz-")


def check_file(content: bytes) -> bool:
    """Is it a spec file? Then what it says survives."""
    file = Path(SCRATCH.name) / "spec.yaml"
    file.write_bytes(content)
    try:
        spec = load_spec(file)
    except UsageError as error:
        refusal(error)
        return False
    _survives(spec)
    return True


def check_recipe(content: dict[str, Any]) -> bool:
    """Is it a recipe? Then it survives JSON, and has an identity and models."""
    try:
        recipe = parse_recipe(content)
    except UsageError as error:
        refusal(error)
        return False
    stored = json.loads(json.dumps(recipe.model_dump(mode="json"), allow_nan=False))
    assert parse_recipe(stored) == recipe
    assert parse_recipe(stored).digest() == recipe.digest()
    recipe.located(lambda model: f"{model}x")
    recipe.models()
    recipe.to_yaml()
    return True


def check_url(text: str) -> bool:
    """Is it a storage URL? Then it survives its text, and can be shown."""
    try:
        url = parse_url(text)
    except UsageError as error:
        refusal(error)
        return False
    assert SECRET not in shown(url), shown(url)
    assert shown(url).isprintable()
    assert parse_url(url.render_as_string(hide_password=False)) == url
    return True


def check_data(file: DataFile) -> bool:
    """Is it data? Then every part of it is text."""
    error = check_data_file(file)
    if error is not None:
        refusal(error)
    return error is None


CHECKS: dict[str, tuple[Callable[[Any], bool], st.SearchStrategy[Any], float]] = {
    "specs": (check_spec, mutated(SPECS), 0.8),
    "spec files": (check_file, files(), 0.2),
    "recipes": (check_recipe, mutated(RECIPES), 1.0),
    "urls": (check_url, urls(), 1.0),
    "data files": (check_data, data_files(), 1.0),
}


def fuzz(name: str, wanted: int) -> tuple[int, int]:
    """How many inputs of a kind were tried, and how many of them were valid."""
    check, strategy, _ = CHECKS[name]
    verdicts = Counter[bool]()
    rounds = settings(
        max_examples=2000, deadline=5000, database=None, suppress_health_check=list(HealthCheck)
    )

    @rounds
    @given(strategy)
    def one_round(content: Any) -> None:
        verdicts[check(content)] += 1

    while verdicts.total() < wanted:  # in rounds, since Hypothesis remembers all of one
        one_round()
    return verdicts.total(), verdicts[True]


@click.command(help=__doc__)
@click.option(
    "--examples", default=100_000, help="How many specs, recipes, URLs and data files, each."
)
@click.option("--only", type=click.Choice(list(CHECKS)))
def main(examples: int, only: str | None) -> None:
    for name in [only] if only else CHECKS:
        start = time.monotonic()
        tried, valid = fuzz(name, int(examples * CHECKS[name][2]))
        seconds = time.monotonic() - start
        click.echo(f"{name}: {tried} inputs, {valid} of them valid, {seconds:.0f} s")


if __name__ == "__main__":
    main()
