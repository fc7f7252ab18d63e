"""The base model of fine-tunes: by what their files say, else by where their weights lie."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.adapters import ADAPTER_CONFIG
from evomerge_optuna.models.sources import source_of
from evomerge_optuna.models.sources.base import is_path
from evomerge_optuna.proposal.centre import Centre, centre
from evomerge_optuna.proposal.inventory import small_json

_NOWHERE = Path("/nonexistent")


@dataclass(frozen=True)
class Base:
    """A base model, and how it was found, as a comment says it."""

    model: str
    why: str


def find_base(sources: Sequence[str], around: Sequence[str]) -> Base | None:
    """The model that the sources were made from; None where nothing tells.

    Args:
        sources: models as a user names them. The base model may be among them.
        around: folders of other models that are here.
    """
    votes: Counter[str] = Counter()
    why: dict[str, str] = {}
    for source in sources:
        for name, place in _declared(source):
            if (found := _placed(name, source, (*sources, *around))) and found != source:
                votes[found] += 1
                why.setdefault(found, f"named by {place} of {source}")
    if votes:
        model, _ = votes.most_common(1)[0]
        return Base(model, why[model])
    named = [model for model in (*sources, *around) if _is_called_base(model)]
    if len(named) == 1:
        return Base(named[0], "its name says so")
    return _by_weights(sources, around)


def adapter_base(adapter: str, around: Sequence[str]) -> str | None:
    """The model that an adapter was trained on, as its settings name it; None: they do not."""
    name = small_json(_folder(adapter) / ADAPTER_CONFIG).get("base_model_name_or_path")
    return _placed(name, adapter, around) if isinstance(name, str) else None


def is_adapter(model: str) -> bool:
    """Is it an adapter alone, without a model that it belongs to?"""
    folder = _folder(model)
    has_model = (folder / "config.json").is_file()  # with the adapter in it, perhaps
    return "+" not in model and (folder / ADAPTER_CONFIG).is_file() and not has_model


def is_lora_of(base: str, model: str) -> bool:
    """Is it a LoRA adapter of this base model, as `BASE+ADAPTER`?"""
    own, _, adapter = model.partition("+")
    settings = small_json(_folder(adapter) / ADAPTER_CONFIG) if adapter else {}
    return own == base and settings.get("peft_type") == "LORA"


def _declared(source: str) -> list[tuple[str, str]]:
    """Names of a base model that a source's own files give, and which file each is from."""
    folder = _folder(source)
    adapter = small_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    card = _card(folder).get("base_model")
    config = small_json(folder / "config.json").get("_name_or_path")
    found = [(adapter, ADAPTER_CONFIG), *((name, "the card") for name in _listed(card))]
    found += [(config, "config.json")]
    return [(name, place) for name, place in found if isinstance(name, str) and name]


def _folder(source: str) -> Path:
    """Where a source's small files lie; a folder that is not there for what the hub has not."""
    if is_path(source):
        return Path(os.path.expanduser(source))
    if source_of(source).is_on_hub(source):
        return _from_hub(source)
    with suppress(SpecError):
        return Path(source_of(source).location(source)[0])
    return _NOWHERE


def _from_hub(source: str) -> Path:
    """The folder of the small files that say something, those that the hub gives."""
    from huggingface_hub import hf_hub_download

    folder = _NOWHERE
    repository, revision = source_of(source).location(source)
    for file in ("README.md", "config.json", ADAPTER_CONFIG):
        with suppress(Exception):  # no connection, no such file: then it says nothing
            folder = Path(hf_hub_download(repository, file, revision=revision)).parent
    return folder


def _card(folder: Path) -> dict[str, object]:
    """What the card's head says, between its first two lines of dashes."""
    with suppress(OSError, ValueError, yaml.YAMLError):
        text = (folder / "README.md").read_text(encoding="utf-8")
        if text.startswith("---"):
            head = yaml.safe_load(text.split("\n---", 1)[0].removeprefix("---"))
            return head if isinstance(head, dict) else {}
    return {}


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _placed(name: str, source: str, around: Sequence[str]) -> str | None:
    """A model that a file names, as it is found from here; None where it is not."""
    last = os.path.basename(name.rstrip("/"))
    same = [model for model in around if os.path.basename(model.rstrip("/")) == last]
    if same and same[0] != source:
        return same[0]
    for folder in (Path(), _folder(source), _folder(source).parent):
        place = folder / os.path.expanduser(name)
        if (place / "config.json").is_file() or (place / "model_index.json").is_file():
            return os.path.relpath(place) if not os.path.isabs(name) else name
    beside = _folder(source).parent / last
    if (beside / "config.json").is_file() and beside.resolve() != _folder(source).resolve():
        return os.path.relpath(beside)
    is_id = name.count("/") == 1 and not name.startswith((".", "/", "~")) and name != source
    return name if is_id and not _is_trainers_folder(name) else None


def _is_trainers_folder(name: str) -> bool:
    """Is it a path on the machine where the model was trained, as `out/checkpoint-500`?"""
    first, last = name.split("/")
    return last.startswith("checkpoint") or first in ("output", "outputs", "out", "models", "ckpt")


def _is_called_base(model: str) -> bool:
    name = os.path.basename(model.rstrip("/")).lower()
    return re.search(r"(^|[-_.])base([-_.]|$)", name) is not None


def _by_weights(sources: Sequence[str], around: Sequence[str]) -> Base | None:
    """The model between the others, of local ones."""
    local = [model for model in sources if is_path(model) and _folder(model).is_dir()]
    if len(local) < len(sources):
        return None
    found: list[Centre] = []
    for extra in ([], *([model] for model in around if model not in local)):
        folders = {model: _folder(model) for model in (*local, *extra)}
        if (one := centre(folders)) is not None:
            found.append(one)
    best = min(found, key=lambda one: one.cosine, default=None)
    return None if best is None else Base(best.model, "its weights lie between those of the others")
