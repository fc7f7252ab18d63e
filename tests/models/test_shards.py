"""Which of a folder's files are the checkpoint's."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.catalog import check_exists
from evomerge_optuna.models.digest import digest_files
from evomerge_optuna.models.fingerprint import fingerprint
from evomerge_optuna.models.headers import headers_in
from evomerge_optuna.models.shards import (
    INDEX,
    SINGLE,
    read_tensors,
    tensor_names,
    weight_files,
    write_file,
    write_tensors,
)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny / "a", tmp_path / "copy"))


def test_the_same_weights_in_another_layout_are_left_alone(tiny: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    again = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    save_file(again, copy / "consolidated.safetensors")
    assert tensor_names(copy) == tensor_names(tiny / "a")
    assert headers_in(copy, "a") == headers_in(tiny / "a", "a")
    assert digest_files(copy) == digest_files(tiny / "a")
    assert fingerprint(copy) == fingerprint(tiny / "a")


def test_the_index_names_the_files(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    write_tensors(copy, tensors.items(), most=1)
    (copy / "other.safetensors").touch()
    assert len(weight_files(copy)) == len(tensors)
    assert set(tensor_names(copy)) == set(tensors)
    assert weight_files(copy)[0].name == f"model-00001-of-{len(tensors):05}.safetensors"


def test_what_is_written_is_read_again_name_by_name(copy: Path, tmp_path: Path) -> None:
    """In one file, named as transformers names it, where it is small enough."""
    tensors = load_file(copy / "model.safetensors")
    shared = tensors | {"again": next(iter(tensors.values()))[:1]}
    write_tensors(tmp_path, shared.items())
    assert [file.name for file in tmp_path.glob("model*")] == [SINGLE]
    found = dict(read_tensors(tmp_path, lambda name: None if name == "again" else f"x.{name}"))
    assert found.keys() == {f"x.{name}" for name in tensors}
    assert all(torch.equal(found[f"x.{name}"], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"weight_map": [1]})])
def test_an_index_that_cannot_be_read(copy: Path, content: str) -> None:
    (copy / INDEX).write_text(content)
    with pytest.raises(SpecError, match=r"index\.json cannot be read; take another copy"):
        check_exists(str(copy), "models.a")


def test_weights_that_mergekit_would_not_find(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "weights.safetensors")
    with pytest.raises(SpecError, match=r"has no \*\.safetensors weights by transformers' names"):
        check_exists(str(copy), "models.a")


def test_a_file_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    file = tmp_path / "none" / SINGLE
    with pytest.raises(OSError, match="No such file") as caught:
        write_file({"a": torch.zeros(1)}, file)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(file))
