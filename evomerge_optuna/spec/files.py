"""Spec files: read, validated, compared; what is wrong is said in one line."""

import difflib
import os
import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from evomerge_optuna.errors import SpecError
from evomerge_optuna.spec.merge import MergeSpec
from evomerge_optuna.spec.objectives import Objective
from evomerge_optuna.spec.part import Strict
from evomerge_optuna.spec.stack import MergedStackSpec
from evomerge_optuna.spec.study import (
    EvaluationSpec,
    JointStudySpec,
    ParameterStudySpec,
    SamplerSpec,
    StackStudySpec,
    StagedStudySpec,
    StudySpec,
)
from evomerge_optuna.spec.tasks import SPLITS, DataSource, Task, TaskData

_STAGES: dict[Any, type[StudySpec]] = {
    "ps": ParameterStudySpec,
    "dfs": StackStudySpec,
    "ps+dfs": JointStudySpec,
}


def load_spec(path: Path) -> StudySpec:
    """Reads a spec file; local model and data paths are taken relative to its folder.

    Raises:
        SpecError: the file cannot be read, is not YAML, or is not a valid spec.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path}: is not UTF-8 text") from error
    try:
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(f"{path}: is not valid YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path}: a spec is a mapping of keys; see studies/quickstart.yaml")
    return parse_spec(_with_absolute_paths(content, path.absolute().parent), origin=str(path))


def parse_spec(content: dict[str, Any], origin: str = "spec") -> StudySpec:
    """Validates a spec's content.

    Raises:
        SpecError: one line for the first thing wrong: the path of its key, what, and the cure.
    """
    stage = content.get("stage")
    if "stage" in content and (not isinstance(stage, str) or stage not in _STAGES):
        raise SpecError(f"{origin}: stage: should be 'ps', 'dfs' or 'ps+dfs', not {stage!r}")
    staged = stage == "ps+dfs" and "from_study" in content
    kind = StagedStudySpec if staged else _STAGES.get(stage, ParameterStudySpec)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{origin}: {_explain(error)}") from error


def differences(stored: StudySpec, given: StudySpec) -> list[str]:
    """The keys in which two specs differ, as 'key: stored value -> given value'."""
    old, new = (_flatten(spec.model_dump(mode="json", by_alias=True)) for spec in (stored, given))
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]


class _Loader(yaml.SafeLoader):
    """Refuses a key given twice, of which YAML would keep the last, and what contains itself.

    Refuses characters, too, that neither a path nor a database can hold.
    """

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True  # PyYAML's own check for recursion needs it
        return super().construct_document(node)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and re.search(r"[\x00\ud800-\udfff]", value):
            raise yaml.constructor.ConstructorError(
                None, None, "a null or surrogate character is no text", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [_flatten(item, f"{path}.{key}" if path else key) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def _with_absolute_paths(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Models and data given as existing local paths become absolute; ids stay as they are."""

    def absolute(text: str) -> str:
        # os.path, since pathlib raises for an unknown user and for a name that is too long.
        if text.startswith(("./", "../", "~", "/")) or os.path.exists(folder / text):
            return os.path.realpath(folder / os.path.expanduser(text))
        return text

    def walk(value: Any, names_path: bool) -> Any:
        if isinstance(value, dict):
            return {
                key: walk(item, key in ("base_model", "path", "data") or value is models)
                for key, item in value.items()
            }
        return absolute(value) if names_path and isinstance(value, str) else value

    models = content.get("models")
    resolved: dict[str, Any] = walk(content, False)
    return resolved


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [part for part in first["loc"] if part not in ("generate", "perplexity")]
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        return f"{path}: unknown key{_suggestion(location)}"
    if kind == "missing":
        return f"{path}: missing; add it"
    if kind == "value_error":
        message = str(first["ctx"]["error"])
        if not path:
            return message
        # A validator of the whole part names the key itself.
        return f"{path}{'.' if re.match('[a-z_]+: ', message) else ': '}{message}"
    if kind == "union_tag_not_found":
        return f"{path}.type: missing; write type: generate or type: perplexity"
    message = first["msg"].replace("Input should be", "should be")
    shown = "" if isinstance(given, dict | list) else f", not {given!r}"
    return f"{path}: {message}{shown}"


def _suggestion(location: list[int | str]) -> str:
    known = sorted(_keys_at(location[:-1]))
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known keys are {', '.join(known)}"


def _keys_at(location: list[int | str]) -> set[str]:
    """The keys of the part of a spec at this path."""
    parts: dict[str, list[type[Strict]]] = {
        "": [*_STAGES.values(), StagedStudySpec],
        "merge": [MergeSpec],
        "stack": [MergedStackSpec],
        "sampler": [SamplerSpec],
        "evaluation": [EvaluationSpec],
        "objectives": [Objective],
        "data": [TaskData],
        "tasks": list(get_args(get_args(Task)[0])),
        **{split: [DataSource] for split in SPLITS},
    }
    names = [str(part) for part in location if str(part) in parts] or [""]
    fields = [(n, f) for part in parts[names[-1]] for n, f in part.model_fields.items()]
    return {field.alias or name for name, field in fields}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
