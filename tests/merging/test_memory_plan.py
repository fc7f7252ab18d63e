"""What a study needs: a 7B model's true shapes, sparse on disk, and what a real merger keeps.

Covers merging.memory_check and models.headers, too.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import (
    SafetensorsFileMetadata,
    SafetensorsRepoMetadata,
    TensorInfo,
)
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig

from evomerge_optuna.errors import SpecError
from evomerge_optuna.machine import Machine
from evomerge_optuna.merging.in_place import ModelInPlace
from evomerge_optuna.merging.memory import size_of
from evomerge_optuna.merging.memory_check import check_memory
from evomerge_optuna.merging.memory_plan import ModelFacts, plan_memory
from evomerge_optuna.merging.resident import ResidentMerger
from evomerge_optuna.models.headers import Header
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import StudySpec, parse_spec
from tests.checked import merged_headers
from tests.conftest import LAYERS, WORDS, SpecMaker, save_tiny_model

GB = 10**9


def box(gigabytes: int, on_gpu: bool = False) -> Machine:
    return Machine(memory=gigabytes * 2**30, free=(gigabytes - 2) * 2**30, on_gpu=on_gpu)


def card(gigabytes: int, host: float) -> Machine:
    """A GPU in a machine with so much memory of its own that is free."""
    return replace(box(gigabytes, on_gpu=True), host=int(host * 2**30))


@pytest.fixture(scope="session")
def mistral(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral-7B's shapes in bfloat16: 14.5 GB to look at, on disk a header."""
    folder = tmp_path_factory.mktemp("mistral")
    config = MistralConfig(architectures=["MistralForCausalLM"], dtype="bfloat16")
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in model.named_parameters():
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


@pytest.fixture
def of_7b(spec_content: Callable[..., dict[str, Any]], mistral: Path, tmp_path: Path) -> Any:
    """A spec over three such models, and their headers."""
    names = ("base", "ja", "math")
    for name in names:
        (tmp_path / name).symlink_to(mistral)

    def make(**parts: Any) -> tuple[StudySpec, dict[str, dict[str, Header]]]:
        content = {
            "base_model": str(tmp_path / "base"),
            "models": {name: str(tmp_path / name) for name in names[1:]},
            "merge": {"method": "dare_ties", "dtype": "bfloat16"},
        }
        given = content | parts
        spec = parse_spec({k: v for k, v in spec_content(**given).items() if v is not None})
        return spec, {key: merged_headers(m, key) for key, m in spec.model_ids().items()}

    return make


def test_a_7b_study_on_24_gb(of_7b: Any, mistral: Path) -> None:
    file = mistral / "model.safetensors"
    assert file.stat().st_size > 14 * GB and file.stat().st_blocks * 512 < 2**20
    spec, headers = of_7b()
    needs = plan_memory(spec, headers, on_gpu=False)
    merged = 2 * 7_241_732_096
    assert merged < needs.required < merged + 3.2 * GB
    assert needs.shared == 3 * merged + 2 * 4 * 7_241_732_096  # models, two masks' numbers
    assert needs.export == merged and needs.scratch == 0
    assert check_memory(spec, headers, box(24)) == (
        "memory: 17.6 GB are needed to build a candidate; of 101.4 GB that all candidates share "
        "nothing can be kept here: it is read or computed at every trial; "
        "an export takes up to 14.5 GB"
    )
    assert "share 0.6 GB can be kept here, the rest is read" in check_memory(
        spec, headers, Machine(24 * GB, 26 * GB, on_gpu=False)
    )
    assert "; the 101.4 GB that all candidates share are kept;" in check_memory(
        spec, headers, box(192)
    )
    assert plan_memory(spec, headers, on_gpu=True).shared == 3 * merged


def test_what_cannot_fit_is_refused_with_the_cure(of_7b: Any) -> None:
    in_float32 = {"method": "dare_ties", "dtype": "float32"}
    for parts, gigabytes, message in (
        (
            {},
            16,
            "17.6 GB of memory are needed to build a candidate, and this machine has 17.2 GB; "
            "write evaluation.merger: checkpoint, which needs 14.5 GB",
        ),
        (
            {"merge": in_float32},
            24,
            r"34\.2 GB .*; write merge.dtype: bfloat16, which needs 17\.",
        ),
        (
            {"merge": in_float32},
            16,
            "; write merge.dtype: bfloat16 and evaluation.merger: checkpoint, which needs 14.5 GB",
        ),
        ({}, 8, "; take a machine with more of it, or smaller models"),
        (
            {"evaluation": {"memory_limit": "64GB"}},
            24,
            "evaluation.memory_limit: 64.0 GB is more than the 25.8 GB that this machine has; ",
        ),
    ):
        spec, headers = of_7b(**parts)
        with pytest.raises(SpecError, match=message):
            check_memory(spec, headers, box(gigabytes))


def test_a_candidate_on_disk_needs_room_there(of_7b: Any) -> None:
    needs = plan_memory(*of_7b(evaluation={"merger": "checkpoint"}), on_gpu=True)
    assert (needs.required, needs.shared, needs.scratch) == (14_483_464_192, 0, 14_483_464_192)


def test_a_copy_in_which_candidates_run(of_7b: Any) -> None:
    plain, copied = (
        plan_memory(*of_7b(evaluation={"dtype": dtype}), on_gpu=True)
        for dtype in ("bfloat16", "float32")
    )
    assert copied.required == plain.required + 4 * 7_241_732_096
    merge = {"method": "dare_ties"}  # in the models' own, which is bfloat16
    assert plan_memory(*of_7b(merge=merge), on_gpu=True) == plan_memory(
        *of_7b(merge=merge, evaluation={"dtype": "bfloat16"}), on_gpu=True
    )


def test_dtypes_are_those_of_the_files(of_7b: Any) -> None:
    """Stored in bfloat16; a configuration that says float32 is what they are loaded in."""
    merge = {"method": "dare_ties"}
    spec, headers = of_7b(merge=merge)
    stored = plan_memory(spec, headers, False, ModelFacts(loaded_in={"base_model": "bfloat16"}))
    assert stored == plan_memory(spec, headers, False)
    said = plan_memory(spec, headers, False, ModelFacts(loaded_in={"base_model": "float32"}))
    assert said.required == stored.required + 4 * 7_241_732_096
    assert (said.shared, said.export) == (stored.shared, stored.export)
    named = of_7b()  # merge.dtype: bfloat16
    assert plan_memory(*named, False, ModelFacts(loaded_in={"base_model": "float32"})) == stored


def test_dtypes_that_differ_by_tensor(of_7b: Any) -> None:
    spec, headers = of_7b(merge={"method": "dare_ties"})
    plain = plan_memory(spec, headers, False)
    name = "model.embed_tokens.weight"
    embedding = headers["models.ja"][name]
    wide = {**headers["models.ja"], name: Header(embedding.shape, "F32")}
    found = plan_memory(spec, {**headers, "models.ja": wide}, False)
    more = 2 * embedding.count
    assert found.export == plain.export + more  # the merge of float32 and bfloat16
    # mergekit's own kernel merges what differs, and keeps no masks.
    assert found.shared == plain.shared + more - 2 * 4 * embedding.count
    half = {name: Header(header.shape, "F16") for name, header in headers["models.ja"].items()}
    both = plan_memory(spec, {**headers, "models.ja": half}, False)
    assert both.export == 2 * plain.export  # nothing short of float32 holds both
    extra = {**headers["models.ja"], "model.layers.0.self_attn.q_proj.bias": Header((4096,), "F32")}
    assert (
        plan_memory(spec, {**headers, "models.ja": extra}, False).export == plain.export + 4 * 4096
    )


def test_a_union_of_vocabularies_and_a_vision_tower(of_7b: Any) -> None:
    spec, headers = of_7b()
    plain = plan_memory(spec, headers, False)
    found = plan_memory(spec, headers, False, ModelFacts(tokens=(32000, 33000), kept=GB))
    assert found.export == plain.export + 2 * 2 * 1000 * 4096 + GB
    assert found.required > plain.required + GB


def test_four_7b_models_on_a_card_of_24_gb(of_7b: Any, mistral: Path, tmp_path: Path) -> None:
    """What fits stays there; the rest is streamed from the machine's memory, or from disk."""
    (tmp_path / "code").symlink_to(mistral)
    models = {name: str(tmp_path / name) for name in ("ja", "math", "code")}
    for method, needed in (("ties", 22.1), ("dare_ties", 20.5)):
        spec, headers = of_7b(models=models, merge={"method": method, "dtype": "bfloat16"})
        for host, places in (
            (128, "57.9 GB are streamed to it from this machine's memory at every trial"),
            (64, "48.1 GB are streamed to it from this machine's memory at every trial, "
             "9.8 GB are read from disk"),
            (2**-30, "57.9 GB are read from disk"),
        ):  # fmt: skip
            assert check_memory(spec, headers, card(24, host)) == (
                f"memory: {needed} GB are needed to build a candidate; of the 57.9 GB of models "
                f"{places}; an export takes up to 14.5 GB"
            )
    document = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    spec, headers = of_7b(models=models, merge={"method": "ties", "dtype": "bfloat16"})
    assert f"\n{check_memory(spec, headers, card(24, 128))}\n" in document
    spec, headers = of_7b(models=models, merge={"method": "dare_ties", "dtype": "bfloat16"})
    assert "models 38.1 GB are kept on the GPU, 19.8 GB are streamed to it from" in check_memory(
        spec, headers, card(80, 64)
    )
    assert "; the 57.9 GB that all candidates share are kept;" in check_memory(
        spec, headers, card(141, 64)
    )


def test_vllm_takes_what_four_7b_models_leave(of_7b: Any, mistral: Path, tmp_path: Path) -> None:
    (tmp_path / "code").symlink_to(mistral)
    models = {name: str(tmp_path / name) for name in ("ja", "math", "code")}
    spec, headers = of_7b(models=models, merge={"method": "ties", "dtype": "bfloat16"})
    for gigabytes, cure in (
        (24, "write evaluation.engine_args: {gpu_memory_utilization: 0.7}"),
        (16, "write evaluation.merger: checkpoint, which needs 15.5 GB"),
    ):
        machine = card(gigabytes, 128)
        usual = ModelFacts(engine=int(0.9 * machine.memory))
        with pytest.raises(SpecError, match=f"; {re.escape(cure)}$"):
            check_memory(spec, headers, machine, usual)
    machine = card(24, 128)
    assert check_memory(spec, headers, machine, ModelFacts(engine=int(0.7 * machine.memory))) == (
        "memory: 25.6 GB are needed to build a candidate; of the 57.9 GB of models 57.9 GB are "
        "streamed to it from this machine's memory at every trial; an export takes up to 14.5 GB"
    )


def test_vllm_on_two_cards_has_half_a_candidate_on_each(of_7b: Any) -> None:
    spec, headers = of_7b()
    machine = card(16, 128)
    usual = ModelFacts(engine=int(0.9 * machine.memory))
    with pytest.raises(SpecError, match=r"; write evaluation\.merger: checkpoint"):
        check_memory(spec, headers, machine, usual)
    with pytest.raises(SpecError, match="gpu_memory_utilization"):
        check_memory(spec, headers, machine, replace(usual, devices=2))


def test_what_the_engine_takes(of_7b: Any) -> None:
    spec, headers = of_7b()
    plain = plan_memory(spec, headers, on_gpu=True)
    # An engine that takes 18 GB for candidates of 14.5 GB and what it needs to run them.
    taken = plan_memory(spec, headers, True, ModelFacts(engine=18 * GB))
    assert taken.required == plain.required - plain.export + 18 * GB
    line = check_memory(spec, headers, box(192), ModelFacts(cache=8 * GB))
    assert ", and up to 8.0 GB for the keys and values of a batch; " in line


STACK_OF_40 = {"stage": "dfs", "base_model": None, "merge": None, "stack": {"max_layers": 40}}


def test_a_stack_is_of_models_on_the_device_or_copied_to_it(of_7b: Any) -> None:
    merged = 2 * 7_241_732_096
    layer, outside = 2 * 218_112_000, 2 * 262_148_096
    spec, headers = of_7b(**STACK_OF_40)
    needs = plan_memory(spec, headers, on_gpu=True)
    assert (needs.required, needs.shared, needs.stacked) == (0, 0, 2 * merged)
    assert needs.copied == 2 * outside + 40 * layer
    assert needs.export == merged + 8 * layer
    assert check_memory(spec, headers, card(24, 64)) == (
        "memory: 18.5 GB are needed to build a candidate; the 29.0 GB of models whose layers are "
        "stacked stay in this machine's memory, from where a stack's layers are copied; "
        "an export takes up to 18.0 GB"
    )
    assert check_memory(spec, headers, card(80, 64)) == (
        "memory: 29.0 GB are needed to build a candidate; an export takes up to 18.0 GB"
    )
    assert plan_memory(spec, headers, True, ModelFacts(engine=GB)).copied == 0


def test_a_stack_on_the_cpu_is_of_mapped_files(of_7b: Any) -> None:
    spec, headers = of_7b(**STACK_OF_40)
    assert "stacked are read from disk where memory is short" in check_memory(
        spec, headers, box(24)
    )
    wider = STACK_OF_40 | {"stack": {"max_layers": 40, "dtype": "float32"}}
    spec, headers = of_7b(**wider)
    with pytest.raises(SpecError, match=r"37\.0 GB of memory .*write stack.dtype: bfloat16, which"):
        check_memory(spec, headers, box(24))


def test_a_merge_and_the_models_beside_it(of_7b: Any) -> None:
    merge = {"method": "linear", "dtype": "bfloat16"}
    alone = plan_memory(*of_7b(merge=merge), on_gpu=False)
    spec, headers = of_7b(stage="ps+dfs", merge=merge, stack={"models": ["merged", "ja"]})
    both = plan_memory(spec, headers, on_gpu=False)
    assert both.required == alone.required
    assert both.stacked == 14_483_464_192
    assert both.shared == alone.shared


def test_adapters_are_merged_on_disk(of_7b: Any, tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name / file).touch()
    models = {name: f"{tmp_path}/base+{tmp_path}/{name}" for name in ("x", "y")}
    needs = plan_memory(*of_7b(models=models), on_gpu=False)
    assert needs.scratch == 2 * 14_483_464_192


def test_adapters_that_are_searched_need_one_model(of_7b: Any, tmp_path: Path) -> None:
    """It and they are held; a candidate is an adapter. Half precision is the cure."""
    for name in "xy":
        (tmp_path / name).mkdir()
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            (tmp_path / name / file).touch()
    models = {name: f"{tmp_path}/{name}" for name in "xy"}
    merge = {"space": "adapter", "method": "cat"}
    spec, headers = of_7b(models=models, merge=merge, evaluation={"dtype": "float32"})
    facts = ModelFacts(adapters=(300 * 10**6, 200 * 10**6))
    base = 7_241_732_096
    needs = plan_memory(spec, headers, on_gpu=False, facts=facts)
    assert needs.required == 4 * base + 500 * 10**6
    assert (needs.shared, needs.scratch) == (0, 0)
    assert plan_memory(spec, headers, on_gpu=True, facts=facts).required == 4 * base + 200 * 10**6
    engine = replace(facts, engine=20 * GB)
    assert plan_memory(spec, headers, on_gpu=True, facts=engine).required == 20 * GB
    plain, headers = of_7b(models=models, merge=merge)
    assert check_memory(plain, headers, box(24), facts).startswith(
        "memory: 15.0 GB are needed to build a candidate; an export takes up to "
    )
    loaded = replace(facts, loaded_in={"base_model": "float32"})
    with pytest.raises(SpecError, match=r"write evaluation.dtype: bfloat16, which needs 15.0 GB"):
        check_memory(plain, headers, box(24), loaded)


def test_headers_that_the_hub_gives(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    """Not those that the configuration says: here the embeddings alone are stored in float16."""
    info = {
        name: TensorInfo(dtype="F16" if "embed" in name else "F32", shape=[1], data_offsets=(0, 4))
        for name in ("model.embed_tokens.weight", "model.norm.weight", "some.buffer")
    }
    file = SafetensorsFileMetadata(metadata={}, tensors=info)
    asked: list[tuple[str, str]] = []

    def tell(name: str, *, revision: str) -> SafetensorsRepoMetadata:
        asked.append((name, revision))
        return SafetensorsRepoMetadata(None, False, {}, {"model.safetensors": file})

    config = AutoConfig.from_pretrained(tiny / "a")
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: config)
    monkeypatch.setattr("huggingface_hub.get_safetensors_metadata", tell)
    found = merged_headers("o/m@v1", "models.a")
    assert asked == [("o/m", "v1")]
    assert {name: header.dtype for name, header in found.items()} == {
        name: one.dtype for name, one in info.items()
    }

    info["model.norm.weight"] = TensorInfo(dtype="I8", shape=[1], data_offsets=(0, 1))
    with pytest.raises(SpecError, match=r"^models\.a .*: tensor model.norm.weight is int8; quant"):
        merged_headers("o/m", "models.a")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no connection")

    monkeypatch.setattr("huggingface_hub.get_safetensors_metadata", fail)
    said = merged_headers("o/m@v1", "models.a")
    assert {header.dtype for header in said.values()} == {"F32"}
    assert said["model.embed_tokens.weight"].shape == (19, 16)


def headers_of(spec: StudySpec) -> dict[str, dict[str, Header]]:
    return {key: merged_headers(m, key) for key, m in spec.model_ids().items()}


def kept_by_a_merger(spec: StudySpec, memory_limit: int) -> tuple[int, int]:
    """Bytes that a real merger keeps after a merge, and those of buffers that are scratch."""
    space = make_space(spec, dict.fromkeys(spec.model_ids(), LAYERS))
    values = {name: (found.low + found.high) / 2 for name, found in space.ranges().items()}
    merger = ResidentMerger("cpu", memory_limit)
    ModelInPlace(merger).merge(space.recipe(values))
    assert merger._resident is not None
    scratch = size_of(*merger._resident._shared.scratch._buffers.values())
    return merger._resident._room.device.used - scratch, scratch


@pytest.fixture(scope="module")
def five(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Five fine-tunes of the tiny base model."""
    root = tmp_path_factory.mktemp("five")
    folders = [save_tiny_model(root / f"m{n}", n, tiny / "base") for n in range(1, 6)]
    return {folder.name: str(folder) for folder in folders}


@pytest.mark.parametrize("count", [2, 4, 5])
@pytest.mark.parametrize(
    "method", ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "della"]
)
def test_the_plan_is_what_a_merger_keeps(
    make_spec: SpecMaker, five: dict[str, str], method: str, count: int
) -> None:
    """Of more than four sources mergekit's own kernel keeps neither ranks nor numbers."""
    spec = make_spec(models=dict(list(five.items())[:count]), merge={"method": method})
    headers = headers_of(spec)
    plan = plan_memory(spec, headers, on_gpu=False)
    kept, scratch = kept_by_a_merger(spec, GB)
    assert kept == plan.export + plan.shared
    assert scratch <= plan.required - plan.export
    models = (count + 1) * plan.export
    assert (plan.shared > models) == (count < 5 and method in ("ties", "dare_ties", "dare_linear"))
    limit = plan.export + plan.shared // 2
    few, _ = kept_by_a_merger(spec, limit)  # the scratch is needed whether it fits or not
    assert plan.export < few <= limit


@pytest.mark.parametrize("method", ["ties", "dare_linear"])
def test_nothing_is_kept_for_a_density_of_1(make_spec: SpecMaker, method: str) -> None:
    spec = make_spec(merge={"method": method, "density": 1})
    headers = headers_of(spec)
    plan = plan_memory(spec, headers, on_gpu=False)
    assert plan.shared == 3 * plan.export
    assert kept_by_a_merger(spec, GB) == (4 * plan.export, 0)


def test_dtypes_that_differ_keep_no_ranks(make_spec: SpecMaker, tiny: Path, tmp_path: Path) -> None:
    half = save_tiny_model(tmp_path / "half", 7, tiny / "base", dtype="bfloat16")
    spec = make_spec(models={"a": str(tiny / "a"), "b": str(half)}, merge={"method": "ties"})
    headers = headers_of(spec)
    plan = plan_memory(spec, headers, on_gpu=False)
    assert plan.shared == 2 * plan.export + plan.export // 2
    assert kept_by_a_merger(spec, GB) == (plan.export + plan.shared, 0)


def test_a_union_of_vocabularies_is_kept_as_it_is_merged(
    make_spec: SpecMaker, tiny: Path, home: Path, tmp_path: Path
) -> None:
    more = save_tiny_model(tmp_path / "more", 7, words=[*WORDS[:10], "neu1", "neu2", "neu3"])
    merge = {"method": "ties", "tokenizer_source": "union", "dtype": "float32"}
    spec = make_spec(models={"a": str(tiny / "a"), "b": str(more)}, merge=merge)
    headers = headers_of(spec)
    before = headers["base_model"]["model.embed_tokens.weight"].shape[0]
    plan = plan_memory(spec, headers, False, ModelFacts(tokens=(before, before + 3)))
    # The merged model is counted by one model's headers, before the union is known.
    kept, _ = kept_by_a_merger(spec, GB)
    assert kept - plan.shared == pytest.approx(plan.export, rel=0.02)
