"""Spec files: read, validated, compared; what is wrong is said in one line."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import explain, kind_and_message, one_line, value
from evomerge_optuna.spec.adapter_merge import AdapterStudySpec
from evomerge_optuna.spec.stages import (
    JointStudySpec,
    ParameterStudySpec,
    StackStudySpec,
    StagedStudySpec,
)
from evomerge_optuna.spec.study import StudySpec

_STAGES: dict[Any, type[StudySpec]] = {
    "ps": ParameterStudySpec,
    "dfs": StackStudySpec,
    "ps+dfs": JointStudySpec,
}
_PATHS = ("path", "data", "include_path")
_MOST_PARTS = 100_000  # of a file, its aliases written out


def load_spec(path: Path) -> StudySpec:
    """Reads a spec file; local model and data paths are taken relative to its folder.

    A task may be the path of a file of its own, whose paths are relative to the folder of that.

    Raises:
        SpecError: a file cannot be read, is not YAML, or the whole is not a valid spec.
    """
    content = read_mapping(path, "a spec is a mapping of keys; see evomerge-optuna study example")
    return spec_at(path.absolute().parent, content, origin=str(path))


def spec_at(folder: Path, content: dict[str, object], origin: str = "spec") -> StudySpec:
    """The spec of a file's content, were the file in this folder; see `load_spec`."""
    resolved = _with_absolute_paths(content, folder)
    if isinstance(tasks := resolved.get("tasks"), dict):
        resolved["tasks"] = {
            name: _task_of(task, folder) if isinstance(task, str) else task
            for name, task in tasks.items()
        }
    return parse_spec(resolved, origin)


def _task_of(file: str, folder: Path) -> dict[str, object]:
    """A task that is kept in a file, so that studies share it."""
    path = folder / os.path.expanduser(file)
    content = read_mapping(path, "a task is a mapping of keys; see studies/tasks")
    return _with_absolute_paths(content, path.parent)


def read_mapping(path: Path, otherwise: str) -> dict[str, object]:
    """The content of a YAML file of keys.

    Args:
        otherwise: what to say of a file of anything else.

    Raises:
        SpecError: it cannot be read, or is no such file.
    """
    place = one_line(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{place}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{place}: is not UTF-8 text") from error
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SpecError(f"{place}: is not valid YAML: {one_line(error)}") from error
    except RecursionError as error:
        raise SpecError(f"{place}: is nested too deep; write it flatter") from error
    except (ValueError, LookupError, AttributeError) as error:  # of constructors, as for `!!int x`
        raise SpecError(f"{place}: is not valid YAML: {kind_and_message(error)}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{place}: {otherwise}")
    return content


def is_spec_file(text: str) -> bool:
    """Does it name a spec file, and not a study?"""
    return text.endswith((".yaml", ".yml")) or "/" in text


def parse_spec(content: dict[str, object], origin: str = "spec") -> StudySpec:
    """Validates a spec's content.

    Raises:
        SpecError: one line for the first thing wrong: the path of its key, what, and the cure.
    """
    stage = content.get("stage")
    if "stage" in content and (not isinstance(stage, str) or stage not in _STAGES):
        raise SpecError(f"{origin}: stage: should be 'ps', 'dfs' or 'ps+dfs', not {value(stage)}")
    kind = _kind(content, stage)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{origin}: {explain(error, kind)}") from error


def _kind(content: dict[str, object], stage: object) -> type[StudySpec]:
    merge = content.get("merge")
    if stage == "ps" and isinstance(merge, dict) and "space" in merge:
        return AdapterStudySpec
    if stage == "ps+dfs" and "from_study" in content:
        return StagedStudySpec
    return _STAGES.get(stage, ParameterStudySpec)


def differences(stored: StudySpec, given: StudySpec) -> list[str]:
    """The keys in which two specs differ, as 'key: stored value -> given value'."""
    old, new = (_flatten(spec.model_dump(mode="json", by_alias=True)) for spec in (stored, given))
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, "absent") != new.get(key, "absent")
    ]


class _Loader(yaml.SafeLoader):
    """Refuses what YAML would take, but a spec cannot be.

    That is a key that is given twice, of which YAML keeps the last; an escape as `\\0`, which
    neither a path nor a database can hold; and aliases of aliases, of which a file of 2 KB can hold
    so many that to write them out fills the memory.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _refusal(f"the key '{key.value}' is given twice", key)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node

    def construct_document(self, node: yaml.Node) -> Any:
        if _parts(node, {}) > _MOST_PARTS:
            what = f"with its aliases written out it has more than {_MOST_PARTS:,} parts"
            raise _refusal(what, node)
        self.deep_construct = True  # so that PyYAML refuses what contains itself
        return super().construct_document(node)

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and re.search(r"[\x00\ud800-\udfff]", value):
            raise _refusal("a null or surrogate character is no text", node)
        return value


def _refusal(what: str, where: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, where.start_mark)


def _parts(node: yaml.Node, known: dict[int, int]) -> int:
    """How many nodes this one holds, its aliases written out.

    One that contains itself is counted once in itself; the constructor refuses it.

    Args:
        known: what was counted before, by the node's id.
    """
    if id(node) not in known:
        known[id(node)] = 1
        inner = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in inner for part in pair]
        known[id(node)] += sum(_parts(part, known) for part in inner)
    return known[id(node)]


def _flatten(value: Any, path: str = "") -> dict[str, object]:
    if isinstance(value, dict) and value:
        parts = [_flatten(item, f"{path}.{key}" if path else key) for key, item in value.items()]
        return {key: item for part in parts for key, item in part.items()}
    return {path: value}


def _with_absolute_paths(content: dict[str, object], folder: Path) -> dict[str, object]:
    """Models and data given as existing local paths become absolute; ids stay as they are."""

    def absolute(text: str) -> str:
        # os.path, since pathlib raises for an unknown user and for a name that is too long.
        if text.startswith(("./", "../", "~", "/")) or os.path.exists(folder / text):
            return os.path.realpath(folder / os.path.expanduser(text))
        return text

    def absolute_parts(model: str) -> str:
        """Of a model and what its name goes on with, unless it is a folder with that in its name.

        That is an adapter after a '+', or the pipeline of a single file.
        """
        if os.path.exists(folder / os.path.expanduser(model)):
            return absolute(model)
        parts = re.split(r"(\+|(?<=\.safetensors)@)", model)
        return "".join(part if part in ("+", "@") else absolute(part) for part in parts)

    def walk(value: Any, change: Callable[[str], str] | None) -> Any:
        if isinstance(value, dict):
            return {
                key: walk(item, absolute_parts if value is models else changes.get(key))
                for key, item in value.items()
            }
        return change(value) if change is not None and isinstance(value, str) else value

    changes = {"base_model": absolute_parts} | dict.fromkeys(_PATHS, absolute)

    models = content.get("models")
    resolved: dict[str, Any] = walk(content, None)
    return resolved
