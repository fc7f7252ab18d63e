"""Configurations of mergekit-evolve become specs of the same search.

Covers proposal.evolve_tasks and proposal.written, too.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mergekit.config import MergeConfiguration
from mergekit.evo.config import EvolMergeConfiguration
from mergekit.evo.genome import METHOD_PARAM_MAPS, ModelGenome

from evomerge_optuna.errors import SpecError, UsageError
from evomerge_optuna.families import check_models
from evomerge_optuna.models.opened import OpenedModels
from evomerge_optuna.proposal.draft import Draft
from evomerge_optuna.proposal.mergekit_evolve import imported
from evomerge_optuna.proposal.written import spec_of, write
from evomerge_optuna.spaces.of_spec import make_space
from evomerge_optuna.spec import StudySpec
from tests.conftest import CommandLine, save_tiny_model

TASKS = ["arc_train"]


@pytest.fixture(autouse=True)
def here(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("base", "a", "b", "c"):
        (tmp_path / name).symlink_to(tiny / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configuration(tasks: Any = TASKS, more: dict[str, Any] | None = None, **genome: Any) -> Any:
    whole: dict[str, Any] = {"models": ["./a", "./b"], "base_model": "./base", **genome}
    return {"genome": whole, "tasks": tasks, **(more or {})}


def translated(content: Any) -> tuple[StudySpec, list[str], Draft]:
    draft, lost = imported(content, "evolve.yml", "evolve", Path.cwd(), None)
    return spec_of(draft, Path("evolve.yaml")), lost, draft


def parameters(found: MergeConfiguration) -> list[tuple[Any, ...]]:
    """What a configuration of mergekit sets: where, of which model, which parameter."""
    places = found.slices if found.slices else [found]
    return sorted(
        (
            tuple(getattr(source, "layer_range", None) or ()) if found.slices else (),
            Path(str(source.model)).name,
            name,
            tuple(sorted(str(part.filter) for part in value)) if _filtered(value) else (),
        )
        for place in places
        for source in (place.sources if found.slices else place.models)
        for name, value in (source.parameters or {}).items()
    )


def _filtered(value: Any) -> bool:
    return isinstance(value, list) and all(hasattr(part, "filter") for part in value)


GENOMES: dict[str, dict[str, Any]] = {
    method: {"merge_method": method} for method in METHOD_PARAM_MAPS if method != "slerp"
} | {
    "granular": {"merge_method": "ties", "layer_granularity": 2},
    "filtered": {"merge_method": "dare_ties", "filters": ["self_attn", "mlp"]},
    "both": {"merge_method": "task_arithmetic", "layer_granularity": 1, "filters": ["mlp"]},
    "without base": {"merge_method": "linear", "base_model": None},
}


@pytest.mark.parametrize("genome", GENOMES.values(), ids=GENOMES)
def test_the_same_parameters_are_searched(genome: dict[str, Any], here: Path) -> None:
    """Those that mergekit-evolve puts into a merge are those that a recipe has."""
    content = configuration(**genome)
    spec, _, _ = translated(content)
    models = OpenedModels(spec.model_ids())
    space = make_space(spec, check_models(spec, models).layers)
    recipe = space.recipe(space.baseline())
    ours = MergeConfiguration.model_validate(recipe.configuration)
    own = ModelGenome(EvolMergeConfiguration.model_validate(content).genome)
    theirs = own.genotype_merge_config(np.array(own.initial_genotype().reshape(-1)))
    assert len(space.ranges()) == own.initial_genotype().numel()
    named = {name for _, _, name, _ in parameters(theirs)}
    assert {parameter for _, _, parameter, _ in parameters(ours)} == named
    for option in ("normalize", "int8_mask"):
        if option in recipe.configuration.get("parameters", {}):
            assert recipe.configuration["parameters"][option] == theirs.parameters[option]
    assert spec.dtype == theirs.dtype == "bfloat16"


def test_smooth_is_interpolation() -> None:
    spec, lost, _ = translated(
        configuration(merge_method="ties", layer_granularity=2, smooth=True, filters=["mlp"])
    )
    assert spec.merge.interpolate == 2 and spec.merge.layer_groups == ("mlp",)  # type: ignore[attr-defined]
    assert not any("smooth" in line for line in lost)
    _, lost, _ = translated(configuration(merge_method="ties", smooth=True))
    assert any(line.startswith("genome.smooth: without layer_granularity") for line in lost)
    with pytest.raises(SpecError, match="3 does not divide the models' 4 layers"):
        translated(configuration(merge_method="ties", layer_granularity=3, smooth=True))


def test_slerp_of_two_goes_from_one_to_the_other() -> None:
    spec, lost, _ = translated(
        configuration(merge_method="slerp", base_model=None, layer_granularity=2)
    )
    assert spec.model_ids()["base_model"].endswith("/a") and list(spec.models) == ["b"]
    assert spec.merge.method == "slerp" and lost == []  # type: ignore[attr-defined]


def test_slerp_of_more_has_no_counterpart() -> None:
    spec, lost, draft = translated(
        configuration(merge_method="slerp", models=["./a", "./b", "./c"], base_model=None)
    )
    assert spec.merge.method == "multislerp"  # type: ignore[attr-defined]
    assert len(lost) == 1 and "picks two of the 3 models" in lost[0]
    assert f"# - {lost[0]}" in draft.text()


def test_negative_weights() -> None:
    for allowed, low in ((True, -1), (False, 0)):
        spec, _, _ = translated(configuration(merge_method="ties", allow_negative_weights=allowed))
        assert spec.merge.weight.low == low and spec.merge.density.low == 0  # type: ignore[attr-defined]


def test_models_as_mergekit_names_them() -> None:
    adapted = {"model": "org/base", "lora": "org/lora"}
    content = configuration(
        models=[adapted, "org/a@v1", "./b", "./base"],
        merge_method="ties",
        tokenizer_source="org/a@v1",
    )
    spec, lost, _ = translated(content)
    assert list(spec.models) == ["lora", "a", "b"]
    assert spec.models["lora"] == "org/base+org/lora" and spec.models["a"] == "org/a@v1"
    assert spec.tokenizer_source == "a"
    assert any("./base is the base model, too" in line for line in lost)
    with pytest.raises(SpecError, match="org/else is none of the models"):
        translated(configuration(merge_method="ties", tokenizer_source="org/else"))


def test_tasks_and_weights() -> None:
    tasks = [
        {"name": "one", "metric": "exact_match,strict-match", "weight": 0.5},
        {"name": "two", "metric": "word_perplexity,none", "weight": -2},
        {"name": "one", "metric": "acc,none", "weight": 0},
    ]
    more = {"limit": 50, "num_fewshot": 3, "apply_chat_template": False}
    spec, lost, _ = translated(configuration(tasks, more, merge_method="ties"))
    content = yaml.safe_load(spec.to_yaml())
    assert content["objectives"] == [
        {"minimize": "two.word_perplexity"},
        {"maximize": "one.exact_match"},
    ]
    assert content["tasks"]["one"] == {
        "type": "lm_eval",
        "task": "one",
        "data": {"search": "[:50]"},
        "metric": "exact_match",
        "filter": "strict-match",
        "num_fewshot": 3,
    }
    assert list(content["tasks"]) == ["one", "two", "one_acc"]  # the last is measured alone
    assert len(lost) == 1 and "two.word_perplexity -2, one.exact_match 0.5" in lost[0]
    with pytest.raises(SpecError, match="no task has a weight"):
        translated(configuration([{"name": "one", "weight": 0}], merge_method="ties"))


def test_a_chat_needs_a_template(here: Path, tiny: Path) -> None:
    spec, lost, _ = translated(configuration(merge_method="ties"))
    assert not spec.tasks["arc_train"].chat  # type: ignore[union-attr]
    assert any(line.startswith("apply_chat_template: no tokenizer") for line in lost)
    talks = save_tiny_model(here / "talks", 5)
    (talks / "chat_template.jinja").write_text("{{ messages }}")
    spec, lost, _ = translated(configuration(merge_method="ties", models=["./a", "./talks"]))
    assert spec.tasks["arc_train"].chat and lost == []  # type: ignore[union-attr]
    assert spec.merge.chat_template == "auto"  # type: ignore[attr-defined]


def test_what_has_no_counterpart_is_named() -> None:
    more = {"shuffle": True, "random_init": True, "apply_chat_template": False, "wandb": 1}
    content = configuration(more=more, merge_method="ties", int8_mask=False, dtype="bfloat16")
    _, lost, _ = translated(content)
    named = [line.partition(":")[0] for line in lost]
    assert named == ["wandb", "genome.int8_mask", "shuffle", "random_init"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"genome": {"models": ["a"]}, "tasks": []}, "genome.merge_method: Field required"),
        (configuration(merge_method="ties", base_model=None), "base_model is required"),
        (configuration(merge_method="sce"), "Invalid merge method"),
        (configuration(merge_method="ties", models=["./a", "./a"]), "is named twice"),
    ],
)
def test_what_is_wrong(content: Any, says: str) -> None:
    with pytest.raises(SpecError, match=says) as refused:
        translated(content)
    assert "\n" not in str(refused.value)


def test_a_file_is_written_whole_or_not_at_all(here: Path) -> None:
    draft = Draft({"study": "s"})
    write(draft, here / "s.yaml", overwrite=False)
    with pytest.raises(UsageError, match="exists; write to another file, or give --overwrite"):
        write(draft, here / "s.yaml", overwrite=False)
    write(Draft({"study": "t"}), here / "s.yaml", overwrite=True)
    assert (here / "s.yaml").read_text() == "study: t\n"
    for place, says in (("s.txt", "ends in .yaml"), ("none/s.yaml", "there is no folder")):
        with pytest.raises(UsageError, match=says):
            write(draft, here / place, overwrite=True)
    assert not list(here.glob(".s.yaml*"))


def test_the_command(command_line: CommandLine, here: Path) -> None:
    content = configuration(merge_method="dare_ties", layer_granularity=2)
    (here / "evolve.yml").write_text(yaml.safe_dump(content))
    out, err = command_line.run("study", "import", "evolve.yml")
    assert out == (
        "Wrote evolve-study.yaml. Run it with: evomerge-optuna study run evolve-study.yaml\n"
    )
    assert "apply_chat_template" in err
    assert "exists" in command_line.run("study", "import", "evolve.yml", code=2)[1]
    (here / "evolve.yml").write_text("[]")
    _, err = command_line.run("study", "import", "evolve.yml", "other.yaml", code=2)
    assert "genome and tasks" in err and not (here / "other.yaml").exists()
