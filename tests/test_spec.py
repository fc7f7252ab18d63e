"""Bad specs get one line: where, what, and the cure. Good ones survive the way to YAML and back.

Covers spec.data, spec.evaluation, spec.files, spec.merge, spec.objectives, spec.part, spec.search,
spec.searched_merge, spec.stack, spec.stages, spec.study and spec.tasks, too.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.errors import SpecError
from evomerge_optuna.methods import METHODS
from evomerge_optuna.methods.method import Parameter
from evomerge_optuna.spec import (
    GenerateTask,
    ParameterStudySpec,
    differences,
    load_spec,
    parse_spec,
)
from tests.pipelines import sdxl_unet

STUDIES = Path(__file__).parent.parent / "studies"
Content = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.name)
def test_shipped_specs_are_valid(file: Path) -> None:
    spec = load_spec(file)
    assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
    stored = parse_spec(json.loads(json.dumps(spec.model_dump(mode="json", by_alias=True))))
    assert stored == spec
    assert stored.to_yaml() == spec.to_yaml()


@st.composite
def contents(draw: st.DrawFn) -> dict[str, Any]:
    """Specs of every method, with any of its parts given or left out."""

    def some(**parts: st.SearchStrategy[Any]) -> dict[str, Any]:
        return draw(st.fixed_dictionaries({}, optional=parts))

    def within(parameter: Parameter) -> st.SearchStrategy[Any]:
        low, high = parameter.bounds or (0, 1)
        middle = (low + high) / 2
        ranges = st.tuples(st.floats(low, middle), st.floats(middle, high)).map(list)
        return st.floats(low, high) | ranges

    method = draw(st.sampled_from(sorted(METHODS)))
    options = {
        option.name: st.booleans() if isinstance(option.default, bool) else st.floats(0, 2)
        for option in METHODS[method].options
    }
    merge = some(
        dtype=st.sampled_from(["float32", "bfloat16"]),
        tokenizer_source=st.sampled_from(["base", "union"]),
        **{parameter.name: within(parameter) for parameter in METHODS[method].parameters},
        **{name: options[name] for name in METHODS[method].fixed},
    )
    groups = some(layer_groups=st.just(["mlp"])) or some(layer_group_size=st.integers(1, 9))
    source = st.fixed_dictionaries({"path": st.just("x")}, optional={"columns": st.just(["text"])})
    perplexity = some(text=st.just("{text}\n"))
    generate = some(
        prompt=st.just("{q}"),
        language=st.just("ja"),
        max_new_tokens=st.just(9),
        scorer=st.sampled_from(["last_number", "exact", {"regex": "a(.)"}]),
        shots=st.sampled_from([{"path": "x", "n": 2}, [{"question": "a", "answer": "b"}]]),
        stop=st.just(["。"]),
    )
    chat = some(chat=st.just(True)) and {"chat": True, **some(system=st.just("s"))}
    choice = some(options=st.sampled_from(["column", ["{a}", "はい"]])) | chat
    return {
        "study": "x",
        "stage": "ps",
        "base_model": "m",
        "models": dict([("a", "m1"), ("b", "m2")][: METHODS[method].sources[1]]),
        "merge": {"method": method, **merge, **groups},
        "tasks": {
            "p": {"type": "perplexity", "data": {"search": draw(source)}, **perplexity},
            "g": {"type": "generate", "data": "hub/data", **generate},
            "c": {"type": "choice", "data": "hub/data", **choice},
            "y": {"type": "python", "data": "hub/data", "function": "a.b:c"},
        },
        "objectives": [draw(st.sampled_from([{"minimize": "p.perplexity"},
                                             {"maximize": "g.accuracy"}]))],
        **some(
            trials=st.integers(1, 9),
            sampler=st.fixed_dictionaries({}, optional={"seed": st.integers(0, 9)}),
            evaluation=st.fixed_dictionaries(
                {"device": st.just("cpu")},
                optional={
                    "merger": st.sampled_from(["resident", "checkpoint"]),
                    "memory_limit": st.sampled_from(["16GB", "1.5GiB", 10**9]),
                },
            ),
        ),
    }  # fmt: skip


@given(contents())
def test_a_spec_survives_its_full_dump(content: dict[str, Any]) -> None:
    spec = parse_spec(content)
    stored = parse_spec(json.loads(json.dumps(spec.model_dump(mode="json", by_alias=True))))
    assert stored == spec
    assert stored.to_yaml() == spec.to_yaml()
    assert parse_spec(yaml.safe_load(stored.to_yaml())) == spec


def test_yaml_is_as_a_user_would_write_it(spec_content: Content) -> None:
    content = spec_content()
    stored = parse_spec(parse_spec(content).model_dump(mode="json", by_alias=True))
    assert yaml.safe_load(stored.to_yaml()) == content


def generated(**parts: Any) -> dict[str, Any]:
    return {"tasks": {"t": {"type": "generate", "data": "x", **parts}}}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"merge": {"methd": "ties"}}, "spec: merge.methd: unknown key; did you mean 'method'?"),
        ({"trails": 10}, "spec: trails: unknown key; did you mean 'trials'?"),
        ({"merge": {"methd": "ties"}}, "spec: merge.methd: unknown key; did you mean 'method'?"),
        (
            {"merge": {"method": "ties", "densty": [0, 1]}},
            "spec: merge.densty: unknown key; did you mean 'density'?",
        ),
        ({"trials": []}, "spec: trials: should be a valid integer, not a list"),
        ({"objectives": 1}, "spec: objectives: should be a list, not 1"),
        ({"objectives": [1]}, "spec: objectives[0]: should be a mapping, not 1"),
        ({"trials": "many"}, "spec: trials: should be a valid integer"),
        ({"trials": 0}, "spec: trials: should be greater than or equal to 1, not 0"),
        (
            {"merge": {"method": "ties", "weight": [2, 1]}},
            "spec: merge.weight: the range [2, 1] is empty; write [1, 2]",
        ),
        (
            {"merge": {"method": "ties", "density": [0, 1.5]}},
            "spec: merge.density: the range must lie within [0, 1]",
        ),
        (
            {"merge": {"method": "ties", "weight": [0, float("nan")]}},
            "spec: merge.weight: both ends must be finite",
        ),
        ({"merge": {"method": "ties", "weight": "high"}}, "merge.weight: write a number, [low"),
        (
            {"merge": {"method": "linear", "density": [0, 1]}},
            "spec: merge: linear has no parameter 'density'; it has weight",
        ),
        (
            {"merge": {"method": "slerp", "normalize": True}},
            "spec: merge: slerp has no option 'normalize'; it has none",
        ),
        (
            {"merge": {"method": "tise"}},
            "spec: merge.method: should be 'linear', 'task_arithmetic'",
        ),
        ({"stage": "sp"}, "spec: stage: should be 'ps', 'dfs' or 'ps+dfs', not 'sp'"),
        ({"stage": "dfs"}, "spec: base_model: unknown key; did you mean 'models'?"),
        ({"base_model": None}, "spec: base_model: ties needs a base model; add base_model"),
        ({"models": {}}, "spec: models: is empty"),
        ({"models": {"a b": "x"}}, "spec: models: the name 'a b' may have only"),
        (
            {"objectives": [{"maximize": "words.accuracy"}]},
            "objectives[0].maximize: task 'words' has no metric 'accuracy'; it has perplexity",
        ),
        (
            {"objectives": [{"maximize": "maths.accuracy"}]},
            "spec: objectives[0].maximize: there is no task 'maths'; tasks are words",
        ),
        ({"objectives": [{}]}, "spec: objectives[0]: write {maximize: TASK.METRIC}"),
        ({"objectives": []}, "spec: objectives: is empty; write - maximize: TASK.METRIC"),
        (
            {"tasks": {"words": {"type": "preplexity", "data": "x"}}},
            "spec: tasks.words.type: should be 'generate', 'choice', 'perplexity', 'python', "
            "'lm_eval', 'vqa' or 'image'",
        ),
        ({"tasks": {"words": {"data": "x"}}}, "spec: tasks.words.type: missing"),
        (
            {"tasks": {"words": {"type": "perplexity", "data": "x", "text": "{"}}},
            "spec: tasks.words.text: is no template",
        ),
        (
            {"tasks": {"words": {"type": "perplexity", "data": {"serach": {"path": "x"}}}}},
            "spec: tasks.words.data.serach: unknown key; did you mean 'search'?",
        ),
        (
            {"tasks": {"words": {"type": "perplexity", "data": "x", "text": "{text:d}"}}},
            "spec: tasks.words.text: column 'text' has a format or conversion; write plain {text}",
        ),
        (
            {"tasks": {"words": {"type": "perplexity", "data": "x", "text": "{text!z}"}}},
            "spec: tasks.words.text: column 'text' has a format or conversion; write plain {text}",
        ),
        (
            generated(scorer="exakt"),
            "spec: tasks.t.scorer: should be 'last_number', 'released_number', 'math', 'exact', "
            "'contains' or 'rouge_l', not",
        ),
        (generated(scorer={"regex": "("}), "spec: tasks.t.scorer.regex: is no regular expression"),
        (
            generated(scorer={"regx": "a"}),
            "spec: tasks.t.scorer.regx: unknown key; did you mean 'regex'?",
        ),
        (generated(system="a"), "spec: tasks.t.system: only a chat has a system message; write"),
        (generated(shots={"path": "a", "k": 1}), "spec: tasks.t.shots.k: unknown key; known keys"),
        (
            {"tasks": {"t": {"type": "perplexity", "data": "x", "prompt": "{a}"}}},
            "spec: tasks.t.prompt: unknown key; known keys are data, text, too_long, type",
        ),
        (
            {"tasks": {"t": {"type": "choice", "data": "x", "scorer": "exact"}}},
            "spec: tasks.t.scorer: unknown key; known keys are answer, answer_as, chat, chat_args",
        ),
        (
            {
                "tasks": {
                    "t": {"type": "lm_eval", "task": "t", "data": {"search": "x"}, "filtr": "a"}
                }
            },
            "spec: tasks.t.filtr: unknown key; did you mean 'filter'?",
        ),
        (
            {"tasks": {"t": {"type": "python", "data": {"search": {"pth": 1}}}}},
            "spec: tasks.t.data.search.pth: unknown key; did you mean 'path'?",
        ),
        (generated(shots=[{"question": []}]), "spec: tasks.t.shots[0].question: should be a valid"),
        (
            generated(data={"search": {"path": "a.csv", "encoding": "latin-99"}}),
            "spec: tasks.t.data.search.encoding: is no encoding of texts that Python knows; write",
        ),
        (
            generated(data={"search": {"path": "a.csv", "encoding": "rot13"}}),
            "spec: tasks.t.data.search.encoding: is no encoding of texts",
        ),
        (
            generated(data={"search": {"path": "a.csv", "delimiter": "\n"}}),
            "spec: tasks.t.data.search.delimiter: parts no cells; write the character between",
        ),
        (
            generated(type="choice", answer_as="label"),
            "spec: tasks.t.answer_as: there are no labels; write labels: [A, B, C, D]",
        ),
        (generated(stop=[""]), "spec: tasks.t.stop[0]: "),
        (
            {"tasks": {"t": {"type": "choice", "data": "x", "options": ["a"]}}},
            "spec: tasks.t.options: ",
        ),
        (
            {"tasks": {"t": {"type": "choice", "data": "x", "options": ["a", "{b"]}}},
            "spec: tasks.t.options[1]: is no template",
        ),
        (
            {"tasks": {"t": {"type": "python", "data": "x", "function": "rm -rf"}}},
            "spec: tasks.t.function: ",
        ),
        ({"study": "a/b"}, "spec: study: a study's name has no '/'"),
        ({"study": "-a"}, "spec: study: a study's name begins with no '-'"),
        ({"study": " "}, "spec: study: a study's name begins with no '-' and has no blanks"),
        ({"study": "a\u3000"}, "spec: study: a study's name begins with no '-' and has no blanks"),
        ({"trials": True}, "spec: trials: should be a valid integer, not True"),
        ({"sampler": {"seed": False}}, "spec: sampler.seed: should be a valid integer, not False"),
        ({"sampler": "bayes"}, "spec: sampler.name: should be 'cmaes', 'nsga2', 'nsga3', 'gp', "),
        ({"starts": "none"}, "spec: starts: should be true or false, not 'none'"),
        (
            {"merge": {"method": "ties", "lambda": True}},
            "spec: merge.lambda: write a number, [low, high]",
        ),
        (
            {"merge": {"method": "ties", "layer_group_size": True}},
            "spec: merge.layer_group_size: should be a valid integer, not True",
        ),
        (
            {"evaluation": {"memory_limit": 16}},
            "spec: evaluation.memory_limit: 16 bytes is less than a megabyte; write a unit",
        ),
        ({"evaluation": {"memory_limit": "16GX"}}, "spec: evaluation.memory_limit: could not"),
        ({"evaluation": {"merger": "disk"}}, "spec: evaluation.merger: should be 'resident' or"),
        ({"racing": True}, "spec: racing: should be a mapping"),
        ({"racing": {"blocks": 4}}, "spec: racing.blocks: 4 are too few to be sure of anything"),
        (
            {
                "racing": {},
                "sampler": {"name": "nsga2"},
                "tasks": {n: {"type": "perplexity", "data": "x"} for n in ("words", "b")},
                "objectives": [{"minimize": "words.perplexity"}, {"minimize": "b.perplexity"}],
            },
            "spec: racing: only a single objective can be raced, here are 2; remove racing",
        ),
    ],
)
def test_bad_spec(spec_content: Content, parts: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        parse_spec(spec_content(**parts))
    assert str(error.value).startswith("spec: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"sampler": {}}, "objectives: CMA-ES takes exactly one objective, here are 2; write sam"),
        (
            {"sampler": {}, "objectives": [{"minimize": "layers"}], "racing": {}},
            "racing: layers is known without any problem; remove racing",
        ),
        (
            {"sampler": {}, "objectives": [{"minimize": "layers"}], "constraints": ["layers >= 2"]},
            "constraints: CMA-ES knows no constraints; write sampler: {name: nsga2}",
        ),
        ({"constraints": ["layers > 3"]}, "constraints[0]: write TASK.METRIC >= NUMBER or"),
        ({"constraints": ["layers >= e"]}, "constraints[0]: write TASK.METRIC >= NUMBER or"),
        (
            {"constraints": ["layer >= 3"]},
            "constraints[0]: there is no task 'layer'; tasks are words; costs are layers, para",
        ),
        (
            {"objectives": [{"minimize": "layers"}, {"minimize": "layers"}]},
            "objectives: the same measure is named twice; remove one",
        ),
        ({"stage": "ps", "stack": None}, "stack: unknown key"),
        ({"stack": {"models": ["a", "b"]}}, "stack.models: names no 'merged'; write [merged, ...]"),
        (
            {"stack": {"models": ["merged", "d"]}},
            "stack.models: there is no model 'd'; models are merged, a, b",
        ),
        ({"stack": {"models": ["merged", "merged"]}}, "stack.models: names a model twice"),
        ({"stack": {"dtype": "float32"}}, "stack.dtype: a stack of a merge has the merge's"),
        ({"models": {"merged": "x", "b": "y"}}, "models: 'merged' is the merge itself; choose"),
        (
            {"evaluation": {"merger": "checkpoint"}},
            "evaluation.merger: a stack is scored in memory; write resident",
        ),
        ({"from_study": "other"}, "base_model: unknown key"),  # a staged search merges nothing
        (
            {"merge": {"method": "ties", "tokenizer_source": "union"}},
            "stack.head: a merge with a tokenizer_source may have other tokens than its sources",
        ),
    ],
)
def test_bad_spec_of_a_joint_search(
    spec_content: Content, parts: dict[str, Any], message: str
) -> None:
    two = [{"minimize": "words.perplexity"}, {"minimize": "layers"}]
    content = spec_content(stage="ps+dfs", objectives=two, sampler={"name": "nsga2"})
    parse_spec(content)
    with pytest.raises(SpecError) as error:
        parse_spec(content | parts)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_costs_are_no_objective_of_merges(spec_content: Content) -> None:
    with pytest.raises(SpecError, match="layers is the same for all merges of a study"):
        parse_spec(spec_content(objectives=[{"minimize": "layers"}]))


def test_a_constraint_survives_its_yaml_form(spec_content: Content) -> None:
    texts = ["words.perplexity <= 30", "words.perplexity >= 1e-05"]
    spec = parse_spec(spec_content(sampler={"name": "nsga2"}, constraints=texts))
    assert yaml.safe_load(spec.to_yaml())["constraints"] == texts
    assert [c.violation(31.0) for c in spec.constraints] == [1.0, 1e-05 - 31.0]


def test_missing_key(spec_content: Content) -> None:
    content = spec_content()
    del content["tasks"]
    with pytest.raises(SpecError, match=r"^spec: tasks: missing; add it$"):
        parse_spec(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("study: [", "is not valid YAML"),
        ("- a\n- b", "a spec is a mapping of keys"),
        ("study: a\nstudy: b", "the key 'study' is given twice"),
        ("a: &a [*a]", "found unconstructable recursive node"),
        ("a: &a {b: *a}", "found unconstructable recursive node"),
        ('base_model: "./a\\0b"', "a null or surrogate character is no text"),
    ],
)
def test_bad_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=message):
        load_spec(file)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_spec(tmp_path / "none.yaml")


def test_local_paths_are_taken_from_the_specs_folder(
    tmp_path: Path, spec_content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "a").mkdir(parents=True)
    content = spec_content(
        base_model="./base",
        models={
            "a": "models/a",
            "hub": "organisation/model",
            "z": "zoo:ja",
            "x": "models/a+./x",
            "y": "organisation/model+models/a",
        },
    )
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(content))
    monkeypatch.chdir("/")
    spec = load_spec(file)
    assert spec.base_model == str(tmp_path / "base")
    assert spec.models == {
        "a": str(tmp_path / "models" / "a"),
        "hub": "organisation/model",
        "z": "zoo:ja",
        "x": f"{tmp_path}/models/a+{tmp_path}/x",
        "y": f"organisation/model+{tmp_path}/models/a",
    }


def test_a_task_in_a_file_of_its_own(tmp_path: Path, spec_content: Content) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "texts.jsonl").touch()
    task = tmp_path / "tasks" / "words.yaml"
    task.write_text("type: perplexity\ndata: {search: {path: texts.jsonl}}\n")
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec_content(tasks={"words": "tasks/words.yaml"})))
    spec = load_spec(file)
    path = str(tmp_path / "tasks" / "texts.jsonl")
    assert spec == parse_spec(
        spec_content(tasks={"words": {"type": "perplexity", "data": {"search": {"path": path}}}})
    )
    task.write_text("- type: perplexity\n")
    with pytest.raises(SpecError, match=r"words\.yaml: a task is a mapping of keys; see"):
        load_spec(file)
    task.unlink()
    with pytest.raises(SpecError, match=r"tasks/words\.yaml: cannot be read: No such file"):
        load_spec(file)


@pytest.mark.parametrize("model", ["~nosuchuser/x", "x" * 5000, "./" + "x" * 5000])
def test_a_path_that_cannot_be(tmp_path: Path, spec_content: Content, model: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec_content(base_model=model)))
    assert load_spec(file).base_model in (model, os.path.normpath(tmp_path / model))


def test_metrics_of_a_scorer() -> None:
    def metrics(**parts: Any) -> tuple[str, ...]:
        task = GenerateTask.model_validate({"type": "generate", "data": "x", **parts})
        return tuple(metric.name for metric in task.metrics)

    assert metrics() == ("accuracy", "number_accuracy")
    assert metrics(language="ja") == ("accuracy", "number_accuracy", "language_share")
    assert metrics(scorer="exact", language="ja") == (
        "accuracy",
        "match_accuracy",
        "language_share",
    )
    assert metrics(scorer={"regex": "a"}) == ("accuracy", "match_accuracy")
    assert metrics(scorer="rouge_l", language="ja") == ("rouge_l", "language_share")


def test_differences_name_key_and_both_values(spec_content: Content) -> None:
    old = parse_spec(spec_content())
    new = parse_spec(spec_content(sampler={"seed": 2}))
    assert differences(old, old) == []
    assert differences(old, new) == ["sampler.population: 4 -> None", "sampler.seed: 1 -> 2"]


yaml_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.sampled_from(["models", "merge", "sampler", "tasks", "objectives", "study"]), yaml_values)
def test_whatever_is_in_a_spec_the_error_is_ours(key: str, value: Any) -> None:
    content = {
        "study": "x",
        "stage": "ps",
        "base_model": "b",
        "models": {"a": "m"},
        "merge": {"method": "ties"},
        "tasks": {"t": {"type": "perplexity", "data": "d"}},
        "objectives": [{"minimize": "t.perplexity"}],
        key: value,
    }
    try:
        parse_spec(content)
    except SpecError as error:
        assert str(error)


def test_the_groups_of_evosdxl_are_those_of_the_release() -> None:
    spec = load_spec(STUDIES / "evosdxl.yaml")
    assert isinstance(spec, ParameterStudySpec)
    assert (spec.method, len(spec.models), spec.sampler.name) == ("linear", 4, "cmaes")
    assert spec.merge.layer_groups is not None
    (group,) = spec.merge.layer_groups
    attention = ("to_q", "to_k", "to_v", "to_out.0")
    names = list(sdxl_unet().state_dict())
    assert {n for n in names if group in n} == {n for n in names if any(a in n for a in attention)}
